"""A ``sitecustomize`` module with which a decoder crashes, hangs or eats memory for real, by the name of the file."""

# Python runs a module of this name at its start: the worker's libsndfile then does to itself what a file's name says.
SABOTAGE = """
import os, signal, sys, time
import importlib.abc, importlib.util

def spoil(soundfile):
    read = soundfile.SoundFile.read
    def sabotaged(self, *arguments, **options):
        name = os.path.basename(str(self.name))
        if "later" in name and not getattr(self, "begun", False):
            self.begun = True
            return read(self, *arguments, **options)
        for crash in ("SIGSEGV", "SIGABRT", "SIGKILL", "SIGBUS", "SIGFPE"):
            if crash in name:
                os.kill(os.getpid(), getattr(signal, crash))
        if "spin" in name:
            while True:
                pass
        if "sleep" in name:
            time.sleep(1000)
        if "exit" in name:
            os._exit(7)
        if "memory" in name:
            eaten = []
            while True:
                eaten.append(bytearray(2**24))
        if "print" in name:
            os.write(1, b"noise on standard output")
            os.write(2, b"noise on standard error")
        return read(self, *arguments, **options)
    soundfile.SoundFile.read = sabotaged

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "soundfile":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        spec.loader.exec_module = lambda module: (execute(module), spoil(module))
        return spec

sys.meta_path.insert(0, Finder())
"""
