"""Responses of the Subsonic API, in the three formats that clients ask for: XML (the default), JSON and JSONP."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from starlette.responses import Response

import msim_tf
from msim_tf.names import xml_characters

PROTOCOL_VERSION = "1.16.1"  # the last of the Subsonic API
_NAMESPACE = "http://subsonic.org/restapi"
_CALLBACK = re.compile(r"[A-Za-z_$][\w$.]{0,200}")


def subsonic_response(content: Mapping[str, Any], parameters: Mapping[str, str], *, status: str = "ok") -> Response:
    """A response of the Subsonic API.

    Args:
        content: what the response holds beside its header, as JSON.
        parameters: of the request; ``f`` chooses the format and ``callback`` the function of JSONP.
        status: "ok" or "failed".
    """
    envelope = {
        "status": status,
        "version": PROTOCOL_VERSION,
        "type": "msim",
        "serverVersion": msim_tf.__version__,
        "openSubsonic": True,
        **content,
    }
    kind, callback = parameters.get("f", "xml"), parameters.get("callback", "")
    if kind not in ("json", "jsonp"):
        return Response(xml_text(envelope), media_type="application/xml")
    text = json.dumps({"subsonic-response": envelope}, ensure_ascii=False)
    # A callback that is no name could be any script.
    if kind == "jsonp" and _CALLBACK.fullmatch(callback):
        return Response(f"{callback}({text});", media_type="application/javascript")
    return Response(text, media_type="application/json")


def failure(code: int, message: str, parameters: Mapping[str, str]) -> Response:
    """An error of the Subsonic API; codes as in its documentation: 0 any other, 10 a parameter is missing."""
    return subsonic_response({"error": {"code": code, "message": message}}, parameters, status="failed")


def xml_text(envelope: Mapping[str, Any]) -> str:
    """The XML of a response: single values become attributes, objects and lists become elements."""
    root = ElementTree.Element("subsonic-response", {"xmlns": _NAMESPACE})
    _fill(root, envelope)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode")


def _fill(element: ElementTree.Element, content: Mapping[str, Any]) -> None:
    for name, value in content.items():
        if isinstance(value, Mapping):
            _fill(ElementTree.SubElement(element, name), value)
        elif isinstance(value, (list, tuple)):
            for item in value:
                child = ElementTree.SubElement(element, name)
                if isinstance(item, Mapping):
                    _fill(child, item)
                else:
                    child.text = _text(item)
        elif value is not None:
            element.set(name, _text(value))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return xml_characters(str(value))
