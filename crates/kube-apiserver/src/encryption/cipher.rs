//! The ciphers of encryption at rest, in upstream's formats: bytes in, bytes out, the random part given by the caller.

use aes::cipher::consts::U12;
use aes::cipher::generic_array::GenericArray;
use aes::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit, block_padding::Pkcs7};
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes128Gcm, Aes256Gcm, AesGcm};
use crypto_secretbox::XSalsa20Poly1305;

type Aes192Gcm = AesGcm<aes::Aes192, U12>;

/// Bytes of the longest random part that a cipher asks for.
pub const RANDOM_MAX: usize = 44;
const GCM_NONCE: usize = 12;
const CBC_IV: usize = 16;
const BOX_NONCE: usize = 24;
/// What a key of one object is derived by, in the envelope of a KMS.
const INFO: usize = 32;

/// A cipher with its key. `Debug` does not tell the key.
pub enum Cipher {
    AesCbc(Vec<u8>),
    AesGcm(Gcm),
    Secretbox(Box<XSalsa20Poly1305>),
    /// A fresh AES-GCM key for each object, derived from a seed: HKDF-SHA256, expand only.
    DerivedGcm(ring::hkdf::Prk),
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Cipher::AesCbc(_) => "AesCbc",
            Cipher::AesGcm(_) => "AesGcm",
            Cipher::Secretbox(_) => "Secretbox",
            Cipher::DerivedGcm(_) => "DerivedGcm",
        })
    }
}

/// AES-GCM by the length of its key.
pub enum Gcm {
    Short(Box<Aes128Gcm>),
    Middle(Box<Aes192Gcm>),
    Long(Box<Aes256Gcm>),
}

impl Gcm {
    fn new(key: &[u8]) -> Option<Self> {
        Some(match key.len() {
            16 => Gcm::Short(Box::new(Aes128Gcm::new_from_slice(key).ok()?)),
            24 => Gcm::Middle(Box::new(Aes192Gcm::new_from_slice(key).ok()?)),
            32 => Gcm::Long(Box::new(Aes256Gcm::new_from_slice(key).ok()?)),
            _ => return None,
        })
    }

    fn seal(&self, nonce: &[u8], text: &[u8], bound: &[u8]) -> Option<Vec<u8>> {
        let payload = Payload { msg: text, aad: bound };
        let nonce = GenericArray::from_slice(nonce);
        match self {
            Gcm::Short(gcm) => gcm.encrypt(nonce, payload),
            Gcm::Middle(gcm) => gcm.encrypt(nonce, payload),
            Gcm::Long(gcm) => gcm.encrypt(nonce, payload),
        }
        .ok()
    }

    fn open(&self, nonce: &[u8], sealed: &[u8], bound: &[u8]) -> Option<Vec<u8>> {
        let payload = Payload { msg: sealed, aad: bound };
        let nonce = GenericArray::from_slice(nonce);
        match self {
            Gcm::Short(gcm) => gcm.decrypt(nonce, payload),
            Gcm::Middle(gcm) => gcm.decrypt(nonce, payload),
            Gcm::Long(gcm) => gcm.decrypt(nonce, payload),
        }
        .ok()
    }
}

struct KeyLength;

impl ring::hkdf::KeyType for KeyLength {
    fn len(&self) -> usize {
        32
    }
}

fn derived(seed: &ring::hkdf::Prk, info: &[u8]) -> Option<Gcm> {
    let mut key = [0; 32];
    let parts = [info];
    seed.expand(&parts, KeyLength).ok()?.fill(&mut key).ok()?;
    Gcm::new(&key)
}

const TOO_SHORT: &str = "the stored data was shorter than the required size";
const TAMPERED: &str = "cipher: message authentication failed";

impl Cipher {
    pub fn aes_cbc(key: &[u8]) -> Option<Self> {
        matches!(key.len(), 16 | 24 | 32).then(|| Cipher::AesCbc(key.to_vec()))
    }
    pub fn aes_gcm(key: &[u8]) -> Option<Self> {
        Gcm::new(key).map(Cipher::AesGcm)
    }
    pub fn secretbox(key: &[u8]) -> Option<Self> {
        XSalsa20Poly1305::new_from_slice(key).ok().map(|cipher| Cipher::Secretbox(Box::new(cipher)))
    }
    pub fn derived_gcm(seed: &[u8]) -> Option<Self> {
        let prk = ring::hkdf::Prk::new_less_safe(ring::hkdf::HKDF_SHA256, seed);
        (seed.len() >= 32).then_some(Cipher::DerivedGcm(prk))
    }

    /// Encrypts. `random` are bytes that were never used before; `bound` is authenticated with the text where the
    /// cipher authenticates anything.
    pub fn seal(
        &self,
        random: &[u8; RANDOM_MAX],
        text: &[u8],
        bound: &[u8],
    ) -> Result<Vec<u8>, &'static str> {
        let failed = "encryption failed";
        match self {
            Cipher::AesCbc(key) => {
                let iv = &random[..CBC_IV];
                let sealed = cbc_seal(key, iv, text).ok_or(failed)?;
                Ok([iv, &sealed].concat())
            }
            Cipher::AesGcm(gcm) => {
                let nonce = &random[..GCM_NONCE];
                let sealed = gcm.seal(nonce, text, bound).ok_or(failed)?;
                Ok([nonce, &sealed].concat())
            }
            Cipher::Secretbox(cipher) => {
                let nonce = &random[..BOX_NONCE];
                let sealed = cipher.encrypt(GenericArray::from_slice(nonce), text).map_err(|_| failed)?;
                Ok([nonce, &sealed].concat())
            }
            Cipher::DerivedGcm(seed) => {
                let (info, nonce) = (&random[..INFO], &random[INFO..INFO + GCM_NONCE]);
                let sealed =
                    derived(seed, info).and_then(|gcm| gcm.seal(nonce, text, bound)).ok_or(failed)?;
                Ok([info, nonce, &sealed].concat())
            }
        }
    }

    /// Decrypts.
    pub fn open(&self, kept: &[u8], bound: &[u8]) -> Result<Vec<u8>, &'static str> {
        match self {
            Cipher::AesCbc(key) => {
                let (iv, sealed) = kept.split_at_checked(CBC_IV).ok_or(TOO_SHORT)?;
                if sealed.len() % CBC_IV != 0 {
                    return Err("the stored data is not a multiple of the block size");
                }
                cbc_open(key, iv, sealed).ok_or("invalid padding on input")
            }
            Cipher::AesGcm(gcm) => {
                let (nonce, sealed) = kept.split_at_checked(GCM_NONCE).ok_or(TOO_SHORT)?;
                gcm.open(nonce, sealed, bound).ok_or(TAMPERED)
            }
            Cipher::Secretbox(cipher) => {
                let (nonce, sealed) = kept.split_at_checked(BOX_NONCE).ok_or(TOO_SHORT)?;
                cipher.decrypt(GenericArray::from_slice(nonce), sealed).map_err(|_| TAMPERED)
            }
            Cipher::DerivedGcm(seed) => {
                let (info, rest) = kept.split_at_checked(INFO).ok_or(TOO_SHORT)?;
                let (nonce, sealed) = rest.split_at_checked(GCM_NONCE).ok_or(TOO_SHORT)?;
                derived(seed, info).and_then(|gcm| gcm.open(nonce, sealed, bound)).ok_or(TAMPERED)
            }
        }
    }
}

fn cbc_seal(key: &[u8], iv: &[u8], text: &[u8]) -> Option<Vec<u8>> {
    Some(match key.len() {
        16 => cbc::Encryptor::<aes::Aes128>::new_from_slices(key, iv)
            .ok()?
            .encrypt_padded_vec_mut::<Pkcs7>(text),
        24 => cbc::Encryptor::<aes::Aes192>::new_from_slices(key, iv)
            .ok()?
            .encrypt_padded_vec_mut::<Pkcs7>(text),
        _ => cbc::Encryptor::<aes::Aes256>::new_from_slices(key, iv)
            .ok()?
            .encrypt_padded_vec_mut::<Pkcs7>(text),
    })
}

fn cbc_open(key: &[u8], iv: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    match key.len() {
        16 => cbc::Decryptor::<aes::Aes128>::new_from_slices(key, iv)
            .ok()?
            .decrypt_padded_vec_mut::<Pkcs7>(sealed),
        24 => cbc::Decryptor::<aes::Aes192>::new_from_slices(key, iv)
            .ok()?
            .decrypt_padded_vec_mut::<Pkcs7>(sealed),
        _ => cbc::Decryptor::<aes::Aes256>::new_from_slices(key, iv)
            .ok()?
            .decrypt_padded_vec_mut::<Pkcs7>(sealed),
    }
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Cipher> {
        let key: Vec<u8> = (0..32).collect();
        vec![
            Cipher::aes_cbc(&key).unwrap(),
            Cipher::aes_gcm(&key[..16]).unwrap(),
            Cipher::aes_gcm(&key[..24]).unwrap(),
            Cipher::aes_gcm(&key).unwrap(),
            Cipher::secretbox(&key).unwrap(),
            Cipher::derived_gcm(&key).unwrap(),
        ]
    }

    #[test]
    fn what_is_sealed_opens_and_what_is_changed_does_not() {
        let random = [7; RANDOM_MAX];
        for cipher in all() {
            let sealed = cipher.seal(&random, b"a secret of some length", b"/registry/secrets/a/b").unwrap();
            assert!(!sealed.windows(6).any(|window| window == b"secret"), "{cipher:?}");
            let opened = cipher.open(&sealed, b"/registry/secrets/a/b").unwrap();
            assert_eq!(opened, b"a secret of some length", "{cipher:?}");
            let mut broken = sealed.clone();
            *broken.last_mut().unwrap() ^= 1;
            assert_ne!(cipher.open(&broken, b"/registry/secrets/a/b").ok(), Some(opened), "{cipher:?}");
            assert!(cipher.open(b"short", b"").is_err());
            let bound = matches!(cipher, Cipher::AesGcm(_) | Cipher::DerivedGcm(_));
            assert_eq!(cipher.open(&sealed, b"/registry/secrets/other").is_err(), bound, "{cipher:?}");
        }
    }

    /// Vectors of NIST SP 800-38A (F.2.5) and of NaCl's own tests.
    #[test]
    fn formats_are_the_published_ones() {
        let bytes = |hex: &str| -> Vec<u8> {
            (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap()).collect()
        };
        let key = bytes("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
        let mut random = [0; RANDOM_MAX];
        random[..16].copy_from_slice(&bytes("000102030405060708090a0b0c0d0e0f"));
        let sealed = Cipher::aes_cbc(&key)
            .unwrap()
            .seal(&random, &bytes("6bc1bee22e409f96e93d7e117393172a"), b"")
            .unwrap();
        assert_eq!(sealed[16..32], bytes("f58c4c04d6e5f1ba779eabfb5f7bfbd6")[..]);
        let key = bytes("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389");
        random[..24].copy_from_slice(&bytes("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37"));
        let sealed = Cipher::secretbox(&key).unwrap().seal(&random, &bytes("be075fc53c81f2d5"), b"").unwrap();
        let opened = Cipher::secretbox(&key).unwrap().open(&sealed, b"").unwrap();
        assert_eq!(opened, bytes("be075fc53c81f2d5"));
        // Poly1305's tag comes first, as NaCl has it: the text is as long as it was behind it.
        assert_eq!(sealed.len(), 24 + 16 + 8);
        assert_eq!(sealed[24 + 16..], bytes("8e993b9f48681273")[..]);
    }
}
