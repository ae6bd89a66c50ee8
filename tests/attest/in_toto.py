"""Reads an attestation with the libraries of in-toto, says what they understood, and signs the same statement again.

    python in_toto.py ENVELOPE PUBLIC_KEY PRIVATE_KEY OUT
"""

import json
import sys

from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from google.protobuf.json_format import MessageToDict, Parse, ParseDict
from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

envelope_file, public_file, private_file, out_file = sys.argv[1:]


def read(file):
    with open(file, "rb") as opened:
        return opened.read()


# The envelope and its signature.
envelope = Envelope.from_dict(json.loads(read(envelope_file)))
key = SSlibKey.from_crypto(load_pem_public_key(read(public_file)))
assert list(envelope.verify([key], 1)) == [key.keyid]
assert envelope.payload_type == "application/vnd.in-toto+json"
whole = envelope.payload
for other in [whole[:-1] + b" ", whole.replace(b"ED", b"Ed", 1)]:
    assert other != whole
    envelope.payload = other
    try:
        envelope.verify([key], 1)
        sys.exit("a payload that was not signed passed for one that was")
    except VerificationError:
        pass
envelope.payload = whole

# The statement and what it says: a field that they do not know is an error.
statement = Parse(envelope.payload, statement_pb2.Statement())
Statement.copy_from_pb(statement).validate()
assert statement.predicate_type == "https://in-toto.io/attestation/test-result/v0.1"
result = ParseDict(MessageToDict(statement.predicate), test_result_pb2.TestResult())
assert result.result in ("PASSED", "WARNED", "FAILED")
for resource in [*statement.subject, *result.configuration]:
    ResourceDescriptor.copy_from_pb(resource).validate()
    # The standard asks for more than its library does.
    assert resource.uri or resource.digest or resource.content

understood = MessageToDict(statement)
understood["predicate"] = MessageToDict(result)
for tests in ["passedTests", "warnedTests", "failedTests"]:
    # Empty lists are left out by their library.
    understood["predicate"].setdefault(tests, [])
# Their library names the field `type`, and the standard `_type`.
if "type" in understood:
    understood["_type"] = understood.pop("type")
json.dump(understood, sys.stdout)

# Signed anew, as they write it.
again = Envelope(envelope.payload, envelope.payload_type, {})
again.sign(CryptoSigner(load_pem_private_key(read(private_file), None)))
with open(out_file, "w") as out:
    json.dump(again.to_dict(), out, indent=2)
