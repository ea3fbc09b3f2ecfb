//! The few DER shapes that wrap a key: PKCS#8 around older private keys, SubjectPublicKeyInfo around public ones.

/// AlgorithmIdentifier { rsaEncryption, NULL }.
const RSA: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
/// AlgorithmIdentifier { ecPublicKey, prime256v1 }.
const P256: &[u8] = b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;

fn tagged(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = vec![tag];
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let used = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
        out.push(0x80 | used.len() as u8);
        out.extend_from_slice(used);
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// PKCS#8 around a PKCS#1 RSA private key ("RSA PRIVATE KEY").
pub fn pkcs8_from_rsa(pkcs1: &[u8]) -> Vec<u8> {
    tagged(SEQUENCE, &[&tagged(INTEGER, &[&[0]]), RSA, &tagged(OCTET_STRING, &[pkcs1])])
}

/// PKCS#8 around a SEC1 private key on P-256 ("EC PRIVATE KEY").
pub fn pkcs8_from_p256(sec1: &[u8]) -> Vec<u8> {
    tagged(SEQUENCE, &[&tagged(INTEGER, &[&[0]]), P256, &tagged(OCTET_STRING, &[sec1])])
}

/// SubjectPublicKeyInfo around a PKCS#1 RSA public key.
pub fn spki_from_rsa(pkcs1: &[u8]) -> Vec<u8> {
    tagged(SEQUENCE, &[RSA, &tagged(BIT_STRING, &[&[0], pkcs1])])
}

/// SubjectPublicKeyInfo around an uncompressed point on P-256.
pub fn spki_from_p256(point: &[u8]) -> Vec<u8> {
    tagged(SEQUENCE, &[P256, &tagged(BIT_STRING, &[&[0], point])])
}
