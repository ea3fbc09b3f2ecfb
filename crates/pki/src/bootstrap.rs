//! Bootstrap tokens: `<id>.<secret>`, by which a machine without an identity asks for one.

use rand::Rng;

/// The namespace, type and name prefix of the Secrets that hold bootstrap tokens.
pub const SECRET_NAMESPACE: &str = "kube-system";
pub const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
pub const SECRET_PREFIX: &str = "bootstrap-token-";
/// The user name prefix and the group of whoever presents one.
pub const USER_PREFIX: &str = "system:bootstrap:";
pub const GROUP: &str = "system:bootstrappers";

const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;

/// A bootstrap token. Its secret half never shows in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub id: String,
    pub secret: String,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Token {
    pub fn generate() -> Self {
        let mut random = rand::rng();
        let mut text = |length: usize| -> String {
            (0..length)
                .map(|_| char::from(b"abcdefghijklmnopqrstuvwxyz0123456789"[random.random_range(0..36)]))
                .collect()
        };
        Token { id: text(ID_LENGTH), secret: text(SECRET_LENGTH) }
    }

    /// `[a-z0-9]{6}.[a-z0-9]{16}`, else `None`.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = |part: &str, length| {
            part.len() == length
                && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        let (id, secret) = text.split_once('.')?;
        (fits(id, ID_LENGTH) && fits(secret, SECRET_LENGTH))
            .then(|| Token { id: id.into(), secret: secret.into() })
    }

    /// The token as a client sends it.
    pub fn reveal(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }
    pub fn secret_name(&self) -> String {
        format!("{SECRET_PREFIX}{}", self.id)
    }
}
