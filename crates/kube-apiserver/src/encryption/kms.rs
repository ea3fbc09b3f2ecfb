//! A key management service behind a Unix socket, by upstream's KMS v2 protocol: it keeps the key that seals our seeds.
//!
//! Invariant: a seed is used while the service names the key that sealed it as the current one, and for a short time
//! when it does not answer; after that nothing is written.

use super::cipher::{Cipher, RANDOM_MAX};
use parking_lot::Mutex;
use prost::Message;
use ring::digest;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint, Uri};

/// The service is asked for its state this often while it is well, and while it is not.
const ASK_EVERY: Duration = Duration::from_secs(60);
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// How long a seed is written with after the service last confirmed its key.
const SEED_LIFE: Duration = Duration::from_secs(3 * 60);
/// Seeds of other servers and of earlier keys that are kept opened.
const SEEDS_MAX: usize = 4096;
const KEY_ID_MAX: usize = 1024;
const SEALED_MAX: usize = 1024;
/// `encryptedDEKSource` holds a seed for HKDF, or the key itself.
const SEED: i32 = 1;
const PLAIN_KEY: i32 = 0;

/// What is kept of an object.
#[derive(Clone, PartialEq, Message)]
pub struct EncryptedObject {
    #[prost(bytes = "vec", tag = "1")]
    pub encrypted_data: Vec<u8>,
    #[prost(string, tag = "2")]
    pub key_id: String,
    #[prost(bytes = "vec", tag = "3")]
    pub encrypted_dek_source: Vec<u8>,
    #[prost(btree_map = "string, bytes", tag = "4")]
    pub annotations: BTreeMap<String, Vec<u8>>,
    #[prost(int32, tag = "5")]
    pub encrypted_dek_source_type: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct StatusRequest {}

#[derive(Clone, PartialEq, Message)]
pub struct StatusResponse {
    #[prost(string, tag = "1")]
    pub version: String,
    #[prost(string, tag = "2")]
    pub healthz: String,
    #[prost(string, tag = "3")]
    pub key_id: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct DecryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    pub uid: String,
    #[prost(string, tag = "3")]
    pub key_id: String,
    #[prost(btree_map = "string, bytes", tag = "4")]
    pub annotations: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub struct DecryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub plaintext: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct EncryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub plaintext: Vec<u8>,
    #[prost(string, tag = "2")]
    pub uid: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct EncryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    pub key_id: String,
    #[prost(btree_map = "string, bytes", tag = "3")]
    pub annotations: BTreeMap<String, Vec<u8>>,
}

/// The seed that writes use now.
struct Current {
    cipher: Arc<Cipher>,
    sealed: EncryptedObject,
    confirmed: Instant,
}

/// One service.
pub struct Kms {
    name: String,
    channel: Channel,
    timeout: Duration,
    current: Mutex<Option<Current>>,
    /// Opened seeds by the digest of their sealed form.
    seeds: Mutex<HashMap<Vec<u8>, Arc<Cipher>>>,
    failure: Mutex<Option<String>>,
}

impl Kms {
    pub fn new(name: &str, socket: &str, timeout: Duration) -> Arc<Self> {
        let path = PathBuf::from(socket);
        let connect = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move {
                let stream = tokio::net::UnixStream::connect(path).await?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
            }
        });
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connect);
        Arc::new(Kms {
            name: name.into(),
            channel,
            timeout,
            current: Mutex::default(),
            seeds: Mutex::default(),
            failure: Mutex::new(Some("not asked yet".into())),
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Why the service is not well, if it is not.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    async fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A, String>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        let call = async {
            grpc.ready().await.map_err(|error| error.to_string())?;
            let codec = tonic_prost::ProstCodec::<Q, A>::default();
            let path = http::uri::PathAndQuery::from_static(path);
            let answer = grpc.unary(tonic::Request::new(request), path, codec).await;
            answer.map(tonic::Response::into_inner).map_err(|status| status.message().to_string())
        };
        let answered = tokio::time::timeout(self.timeout, call).await;
        answered.unwrap_or_else(|_| Err("context deadline exceeded".into()))
    }

    /// Asks for the service's state until `stop`; renews the seed when the key has changed.
    pub async fn keep(self: Arc<Self>, stop: tokio_util::sync::CancellationToken) {
        loop {
            let asked = self.refresh().await;
            let pause = if asked.is_ok() { ASK_EVERY } else { ASK_AGAIN };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// One question, and what follows from the answer.
    pub async fn refresh(&self) -> Result<(), String> {
        let asked = self.renew().await;
        if let Err(error) = &asked {
            tracing::warn!(name = self.name, error, "Failed to ask a key management service");
        }
        *self.failure.lock() = asked.as_ref().err().cloned();
        asked
    }

    async fn renew(&self) -> Result<(), String> {
        let status: StatusResponse = self.call("/v2.KeyManagementService/Status", StatusRequest {}).await?;
        if status.healthz != "ok" {
            return Err(format!("got unexpected healthz status: {}", status.healthz));
        }
        if !matches!(status.version.as_str(), "v2" | "v2beta1") {
            return Err(format!("expected KMSv2 API version v2, got {}", status.version));
        }
        if status.key_id.is_empty() || status.key_id.len() > KEY_ID_MAX {
            return Err("keyID is empty or too long".into());
        }
        {
            let mut current = self.current.lock();
            if let Some(current) = current.as_mut().filter(|current| current.sealed.key_id == status.key_id) {
                current.confirmed = Instant::now();
                return Ok(());
            }
        }
        let mut seed = vec![0; 32];
        rand::RngCore::fill_bytes(&mut rand::rng(), &mut seed);
        let cipher = Arc::new(Cipher::derived_gcm(&seed).ok_or("the seed is too short")?);
        let request = EncryptRequest { plaintext: seed, uid: uuid::Uuid::new_v4().to_string() };
        let sealed: EncryptResponse = self.call("/v2.KeyManagementService/Encrypt", request).await?;
        if sealed.ciphertext.is_empty() || sealed.ciphertext.len() > SEALED_MAX {
            return Err("the sealed seed is empty or too long".into());
        }
        let sealed = EncryptedObject {
            encrypted_data: Vec::new(),
            key_id: sealed.key_id,
            encrypted_dek_source: sealed.ciphertext,
            annotations: sealed.annotations,
            encrypted_dek_source_type: SEED,
        };
        self.remember(digest_of(&sealed), Arc::clone(&cipher));
        *self.current.lock() = Some(Current { cipher, sealed, confirmed: Instant::now() });
        tracing::info!(name = self.name, "Took a new seed from a key management service");
        Ok(())
    }

    fn remember(&self, digest: Vec<u8>, cipher: Arc<Cipher>) {
        let mut seeds = self.seeds.lock();
        if seeds.len() >= SEEDS_MAX {
            seeds.clear();
        }
        seeds.insert(digest, cipher);
    }

    /// Seals a value with the current seed.
    pub fn seal(&self, random: &[u8; RANDOM_MAX], value: &[u8], bound: &[u8]) -> Result<Vec<u8>, String> {
        let current = self.current.lock();
        let Some(current) = current.as_ref() else {
            let why = self.failure().unwrap_or_default();
            return Err(format!("the key management service {:?} gave no key yet: {why}", self.name));
        };
        if current.confirmed.elapsed() > SEED_LIFE {
            return Err(format!(
                "the key of the key management service {:?} was not confirmed in time",
                self.name
            ));
        }
        let data = current.cipher.seal(random, value, bound)?;
        let object = EncryptedObject { encrypted_data: data, ..current.sealed.clone() };
        Ok(object.encode_to_vec())
    }

    /// Opens a value, and tells whether its key is no longer the current one. Asks the service for seeds not seen yet.
    pub async fn open(&self, kept: &[u8], bound: &[u8]) -> Result<(Vec<u8>, bool), String> {
        let object = EncryptedObject::decode(kept).map_err(|error| error.to_string())?;
        let digest = digest_of(&object);
        let known = self.seeds.lock().get(&digest).cloned();
        let cipher = match known {
            Some(cipher) => cipher,
            None => {
                let request = DecryptRequest {
                    ciphertext: object.encrypted_dek_source.clone(),
                    uid: uuid::Uuid::new_v4().to_string(),
                    key_id: object.key_id.clone(),
                    annotations: object.annotations.clone(),
                };
                let answer: Result<DecryptResponse, String> =
                    self.call("/v2.KeyManagementService/Decrypt", request).await;
                let seed =
                    answer.map_err(|error| format!("failed to decrypt DEK, error: {error}"))?.plaintext;
                let cipher = match object.encrypted_dek_source_type {
                    SEED => Cipher::derived_gcm(&seed),
                    PLAIN_KEY => Cipher::aes_gcm(&seed),
                    other => return Err(format!("unknown encryptedDEKSourceType: {other}")),
                };
                let cipher =
                    Arc::new(cipher.ok_or("the key management service gave a key of a wrong length")?);
                self.remember(digest, Arc::clone(&cipher));
                cipher
            }
        };
        let value = cipher.open(&object.encrypted_data, bound)?;
        let current = self.current.lock();
        let stale = object.encrypted_dek_source_type != SEED
            || current.as_ref().is_some_and(|current| current.sealed.key_id != object.key_id);
        Ok((value, stale))
    }
}

/// What tells sealed seeds apart.
fn digest_of(object: &EncryptedObject) -> Vec<u8> {
    let without = EncryptedObject { encrypted_data: Vec::new(), ..object.clone() };
    digest::digest(&digest::SHA256, &without.encode_to_vec()).as_ref().to_vec()
}
