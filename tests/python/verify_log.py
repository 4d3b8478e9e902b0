"""An independent verifier of the exchange log: the standard library and `cryptography`, nothing of the gateway's.

    verify_log.py VKEY FETCH...

where FETCH is a folder with the log's files (data/log), or URL CA CERTIFICATE KEY of a running gateway's HTTPS port.
"""
import base64
import hashlib
import pathlib
import ssl
import sys
import urllib.error
import urllib.request

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

TILE = 256


class Wrong(Exception):
    """Something is not as it must be."""


def leaf(entry):
    return hashlib.sha256(b"\0" + entry).digest()


def node(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


def tree(hashes):
    """MTH of RFC 6962, section 2.1, over hashes of leaves."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return node(tree(hashes[:split]), tree(hashes[split:]))


def open_note(vkey, note):
    """A signed note (C2SP signed-note) of this key: the checkpoint's origin, size and root."""
    name, key_hash, key = vkey.strip().split("+", 2)
    key = base64.b64decode(key)
    if key[0] != 1 or hashlib.sha256(name.encode() + b"\n" + key).digest()[:4].hex() != key_hash:
        raise Wrong("the verifier key")
    text, signatures = note.split("\n\n", 1)
    text += "\n"
    for line in signatures.splitlines():
        signer, signature = line.removeprefix("\u2014 ").rsplit(" ", 1)
        signature = base64.b64decode(signature)
        if signer == name and signature[:4].hex() == key_hash:
            try:
                Ed25519PublicKey.from_public_bytes(key[1:]).verify(signature[4:], text.encode())
            except InvalidSignature:
                raise Wrong("the checkpoint's signature") from None
            origin, size, root = text.splitlines()[:3]
            if origin != name:
                raise Wrong("the checkpoint's origin")
            return int(size), base64.b64decode(root)
    raise Wrong("the checkpoint has no signature of this key")


def cosigned_at(vkey, note):
    """When a witness cosigned a checkpoint (C2SP tlog-cosignature), in seconds; None where it did not."""
    name, key_hash, key = vkey.strip().split("+", 2)
    key = base64.b64decode(key)
    if key[0] not in (4, 6) or hashlib.sha256(name.encode() + b"\n" + key).digest()[:4].hex() != key_hash:
        raise Wrong("the witness's key")
    text, signatures = note.split("\n\n", 1)
    for line in signatures.splitlines():
        signer, signature = line.removeprefix("\u2014 ").rsplit(" ", 1)
        signature = base64.b64decode(signature)
        if signer == name and signature[:4].hex() == key_hash:
            time = int.from_bytes(signature[4:12], "big")
            try:
                if key[0] == 4:
                    signed = f"cosignature/v1\ntime {time}\n{text}\n".encode()
                    Ed25519PublicKey.from_public_bytes(key[1:]).verify(signature[12:], signed)
                else:
                    origin, size, root = text.splitlines()
                    short = lambda words: bytes([len(words.encode())]) + words.encode()
                    signed = (b"subtree/v1\n\0" + short(name) + signature[4:12] + short(origin) + bytes(8)
                              + int(size).to_bytes(8, "big") + base64.b64decode(root))
                    MLDSA44PublicKey.from_public_bytes(key[1:]).verify(signature[12:], signed)
            except InvalidSignature:
                raise Wrong("the witness's cosignature") from None
            return time
    return None


def path(kind, index, width):
    name = f"{index % 1000:03}"
    while index >= 1000:
        index //= 1000
        name = f"x{index % 1000:03}/{name}"
    return f"tile/{kind}/{name}" + ("" if width == TILE else f".p/{width}")


def bundle(data, width):
    entries = []
    while data:
        length = int.from_bytes(data[:2], "big")
        if len(data) < 2 + length:
            raise Wrong("an entry is cut off")
        entries.append(data[2:2 + length])
        data = data[2 + length:]
    if len(entries) != width:
        raise Wrong(f"{len(entries)} entries where {width} must be")
    return entries


def verify_log(vkey, fetch):
    """Recomputes everything from the entries (from the hash tiles, where bundles were pruned); gives size and root."""
    size, root = open_note(vkey, fetch("checkpoint").decode())
    try:
        runs = [tuple(map(int, line.split())) for line in fetch("pruned").decode().splitlines()]
    except (FileNotFoundError, urllib.error.HTTPError):
        runs = []
    leaves = []
    for index in range((size + TILE - 1) // TILE):
        width = min(TILE, size - index * TILE)
        if any(first <= index <= last for first, last in runs):
            tile = fetch(path(0, index, width))
            leaves += [tile[at:at + 32] for at in range(0, len(tile), 32)]
            continue
        leaves += [leaf(entry) for entry in bundle(fetch(path("entries", index, width)), width)]
    if tree(leaves) != root:
        raise Wrong("the entries do not have the checkpoint's root")
    level, hashes = 0, leaves
    while hashes:
        for index in range((len(hashes) + TILE - 1) // TILE):
            mine = hashes[index * TILE:(index + 1) * TILE]
            if fetch(path(level, index, len(mine))) != b"".join(mine):
                raise Wrong(f"hash tile {level}/{index}")
        hashes = [tree(hashes[at:at + TILE]) for at in range(0, len(hashes) - len(hashes) % TILE, TILE)]
        level += 1
    return size, root


def root_of(value, index, size, path):
    """The root that a leaf's hash and its inclusion path give (RFC 9162, section 2.1.3.2)."""
    if index >= size:
        raise Wrong("the index is outside of the tree")
    at, last = index, size - 1
    for sibling in path:
        if last == 0:
            raise Wrong("the path is too long")
        if at % 2 == 1 or at == last:
            value = node(sibling, value)
            while at % 2 == 0 and at != 0:
                at, last = at >> 1, last >> 1
        else:
            value = node(value, sibling)
        at, last = at >> 1, last >> 1
    if last != 0:
        raise Wrong("the path is too short")
    return value


def consistent(old_size, old_root, new_size, new_root, path):
    """Whether a proof shows that the older tree is the beginning of the newer one (RFC 9162, section 2.1.4.2)."""
    if old_size == new_size:
        return not path and old_root == new_root
    if not 0 < old_size < new_size or not path and old_size & (old_size - 1):
        return False
    path = list(path)
    first = old_root if old_size & (old_size - 1) == 0 else path.pop(0)
    at, last = old_size - 1, new_size - 1
    while at % 2 == 1:
        at, last = at >> 1, last >> 1
    old = new = first
    for sibling in path:
        if last == 0:
            return False
        if at % 2 == 1 or at == last:
            old, new = node(sibling, old), node(sibling, new)
            while at % 2 == 0 and at != 0:
                at, last = at >> 1, last >> 1
        else:
            new = node(new, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and (old, new) == (old_root, new_root)


def verify_receipt(vkey, text):
    """A receipt (C2SP tlog-proof): gives the entry's bytes and its index."""
    head, note = text.split("\n\n", 1)
    magic, extra, index, *hashes = head.splitlines()
    if magic != "c2sp.org/tlog-proof@v1":
        raise Wrong("not a receipt")
    size, root = open_note(vkey, note)
    entry, index = base64.b64decode(extra.removeprefix("extra ")), int(index.removeprefix("index "))
    if root_of(leaf(entry), index, size, map(base64.b64decode, hashes)) != root:
        raise Wrong("the entry is not under the checkpoint")
    return entry, index


def from_folder(folder):
    return lambda name: (pathlib.Path(folder) / name).read_bytes()


def from_gateway(url, ca, certificate, key):
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(certificate, key)

    def fetch(name):
        with urllib.request.urlopen(f"{url}/log/{name}", context=context, timeout=10) as answer:
            return answer.read()

    return fetch


if __name__ == "__main__":
    source = from_folder(sys.argv[2]) if len(sys.argv) == 3 else from_gateway(*sys.argv[2:])
    size, root = verify_log(sys.argv[1], source)
    print(f"verified: {size} entries, root {root.hex()}")
