"""Every error text of TensorFlow Serving that the embedded server answers with: one table,
taken from the servers 2.15.1 and 2.18.1.

Clients recognise errors by these texts, so they are copied letter by letter, including blanks at their ends. Where the
two versions differ, the text is that of 2.18.1. ``serving/README.md`` lists what differs from the real server.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from msim_tf.export.status import ServingError


@dataclass(frozen=True)
class ErrorText:
    """One row of the table.

    Attributes:
        text: with the names of its values in braces.
        code: canonical code.
    """

    text: str
    code: str = "INVALID_ARGUMENT"

    def error(self, **values: Any) -> ServingError:
        """The exception, with ``values`` filled in."""
        return ServingError(self.code, self.text.format(**values))


# --- Which model, version and signature ---
UNKNOWN_MODEL = ErrorText("Servable not found for request: Latest({model})", "NOT_FOUND")
UNKNOWN_VERSION = ErrorText("Servable not found for request: Specific({model}, {version})", "NOT_FOUND")
UNKNOWN_LABEL = ErrorText("Unrecognized servable version label: {label}")
NO_VERSIONS = ErrorText("Could not find any versions of model {model}", "NOT_FOUND")
NO_SUCH_VERSION = ErrorText("Could not find version {version} of model {model}", "NOT_FOUND")
UNKNOWN_SIGNATURE_GRPC = ErrorText('Serving signature key "{signature}" not found.', "FAILED_PRECONDITION")
UNKNOWN_SIGNATURE_REST = ErrorText('Serving signature name: "{signature}" not found in signature def')
NO_INPUT_MAP = ErrorText("Failed to get input map for signature: {signature}")
NO_MODEL_SPEC = ErrorText("Missing ModelSpec")
NO_MODEL_NAME_GRPC = ErrorText("ModelSpec has no name specified.")
NO_METADATA_FIELD = ErrorText("GetModelMetadataRequest must specify at least one metadata_field")
UNKNOWN_METADATA_FIELD = ErrorText("Metadata field {field} is not supported")
NO_KIND_OF_INPUTS = ErrorText("No {kind} inputs found in SignatureDef: {signature}")

# --- Loading a version ---
NO_SAVED_MODEL = ErrorText(
    "{path}: not a SavedModel (no saved_model.pb); expected a directory such as NAME/1", "NOT_FOUND"
)

# --- Inputs and outputs ---
WRONG_INPUTS = ErrorText(
    "input size does not match signature: {sent_count}!={expected_count} len({{{sent}}}) != len({{{expected}}}). "
    "Sent extra: {{{extra}}}. Missing but required: {{{missing}}}."
)
MISSING_INPUT = ErrorText(
    "Signature input alias: {name}(feed name: {tensor}) not found in request and no default value provided. "
    "Inputs expected to be in the request {{{sent}}}, or default input alias set: "
)
BAD_TENSOR = ErrorText("tensor parsing error: {name}")
UNKNOWN_OUTPUT = ErrorText(
    "output tensor alias not found in signature: {name} Outputs expected to be in the set {{{expected}}}."
)
REPEATED_OUTPUT = ErrorText("duplicate output tensor alias: {name}")
MALFORMED_TENSOR_NAME = ErrorText("Malformed TENSOR_NAME '{name}'")

# --- The path of a REST request ---
MALFORMED_REQUEST = ErrorText("Malformed request: {method} {path}")
NO_MODEL_NAME_REST = ErrorText("Missing model name in request.")

# --- JSON that cannot be parsed (RapidJSON's texts) ---
EMPTY_BODY = ErrorText("JSON Parse error: The document is empty")
PARSE_ERROR = ErrorText("JSON Parse error: {reason} at offset: {offset}")
EMPTY_DOCUMENT = "The document is empty."
INVALID_VALUE = "Invalid value."
MISSING_NAME = "Missing a name for object member."
MISSING_COLON = "Missing a colon after a name of object member."
MISSING_COMMA_IN_OBJECT = "Missing a comma or '}' after an object member."
MISSING_COMMA_IN_ARRAY = "Missing a comma or ']' after an array element."
BAD_HEX_ESCAPE = "Incorrect hex digit after \\u escape in string."
BAD_SURROGATE_PAIR = "The surrogate pair in string is invalid."
BAD_ESCAPE = "Invalid escape character in string."
MISSING_QUOTE = "Missing a closing quotation mark in string."
NUMBER_TOO_BIG = "Number too big to be stored in double."
MISSING_FRACTION = "Miss fraction part in number."
MISSING_EXPONENT = "Miss exponent in number."

# --- JSON that is no request ---
NOT_AN_OBJECT = ErrorText("JSON Value: {value} Is not object")
BAD_SIGNATURE_NAME = ErrorText(
    "JSON Value: {value} not formatted correctly. 'signature_name' key must be a string value."
)
NEITHER_KEY = ErrorText("Missing 'inputs' or 'instances' key")
BOTH_KEYS = ErrorText(
    "JSON Value: {value} Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
)
INSTANCES_NOT_A_LIST = ErrorText("JSON Value: {value} Expecting 'instances' to be an list/array")
NO_INSTANCES = ErrorText("JSON Value: {value} No values in 'instances' array")
NO_EXAMPLES = ErrorText("JSON Value: {value} When method is classify, key 'examples' is expected and was not found")
EXAMPLES_NOT_A_LIST = ErrorText("JSON Value: {value} Expecting 'examples' value to be an list/array")
EXAMPLE_NOT_AN_OBJECT = ErrorText("Example must be JSON object but got JSON {actual}")
EMPTY_EXAMPLES = ErrorText("JSON Value: {value} 'examples' value is an empty array")
MISSING_NAMED_INPUT = ErrorText("Missing named input: {name} in 'inputs' object.")
PLAIN_INPUTS = ErrorText(
    "inputs is a plain value/list, but expecting an object as multiple input tensors required as per tensorinfo_map"
)
PLAIN_INSTANCES = ErrorText(
    "instances is a plain list, but expecting list of objects as multiple input tensors required as per tensorinfo_map"
)
MIXED_INSTANCES = ErrorText("Expecting {expected} but got {actual} at item {position} of input list")
WRONG_KEYS = ErrorText(
    "Failed to process element: {position} of 'instances' list. JSON object: {value} keys must be equal to: {expected}"
)
BAD_INSTANCE = ErrorText("Failed to process element: {position}{key} of 'instances' list. Error: {code}: {message}")
UNKNOWN_NAMED_INPUT = "JSON object: does not have named input: {name}"
WRONG_SIZE = "Expecting tensor size: {expected} but got: {actual}"
WRONG_SHAPE = "Expecting shape {expected} but got: {actual}"

# --- JSON values that are no tensor ---
WRONG_TYPE = ErrorText("JSON Value: {value} Type: {actual} is not of expected type: {expected}")
NO_CONVERSION = ErrorText("Conversion of JSON Value: {value} to type: {expected}", "UNIMPLEMENTED")
NO_BASE64_OBJECT = ErrorText("JSON Value: {value} not formatted correctly for base64 data")
BAD_BASE64 = ErrorText("Unable to base64 decode")
WRONG_LEVEL = ErrorText(
    "JSON Value: {value} found at incorrect level: {actual} in the JSON DOM. Expected at level: {expected}"
)
UNEXPECTED_LIST = ErrorText("Encountered list at unexpected level: {level} expected < {rank}")
UNEXPECTED_SIZE = ErrorText("Encountered list at unexpected size: {actual} at level: {level} expected size: {expected}")

# --- Outputs that have no row format ---
NO_ROWS = ErrorText("Tensor name: {name} has no shape information ")
UNEQUAL_ROWS = ErrorText("Tensor name: {name} has inconsistent batch size: {actual} expecting: {expected}")

# --- The embedded server's own limits; the real server has none of them ---
REQUEST_TOO_LARGE = ErrorText("The request body is larger than {limit} bytes", "RESOURCE_EXHAUSTED")
TOO_MANY_VALUES = ErrorText("The request holds more than {limit} values", "RESOURCE_EXHAUSTED")
BODY_TOO_SLOW = ErrorText("The request body took longer than {seconds:g} s", "DEADLINE_EXCEEDED")
NO_MESSAGE = ErrorText("The request holds no message", "INVALID_ARGUMENT")
SERVER_BUSY = ErrorText("The requests under way fill the server's memory budget; try again", "RESOURCE_EXHAUSTED")
OUT_OF_MEMORY = ErrorText("Not enough memory for the request", "RESOURCE_EXHAUSTED")
INTERNAL_ERROR = ErrorText("Internal error; see the server's log", "INTERNAL")
NO_TOKEN = ErrorText("A token is required: authorization: Bearer TOKEN", "UNAUTHENTICATED")
