"""The door to the outside: registry packages and URLs, with hash, resume, progress, an offline switch."""

from onestage.fetch.cache import cache_folder, sha256_of
from onestage.fetch.registry import RegistryFile, registry_file, registry_files
from onestage.fetch.url import url_file

__all__ = ["RegistryFile", "cache_folder", "registry_file", "registry_files", "sha256_of", "url_file"]
