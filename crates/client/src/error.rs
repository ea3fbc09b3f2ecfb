//! Why a call to the API failed, and whether trying again can help.

use api::errors::ApiError;

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered with a Status.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// No answer came: connection refused, reset, TLS failed.
    #[error("{context}")]
    Transport {
        context: String,
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// No answer came in time.
    #[error("no answer within {seconds} s")]
    Timeout { seconds: u64 },
    /// The answer is not what was asked for.
    #[error("the server's answer cannot be read: {0}")]
    Decode(String),
    /// The answer is larger than this client takes.
    #[error("the server's answer exceeds {limit} bytes")]
    TooLarge { limit: usize },
    /// The call cannot be made: no such resource, a bad name or file.
    #[error("{0}")]
    Request(String),
}

impl Error {
    /// A transport failure with its cause.
    pub fn transport(
        context: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Error::Transport { context: context.into(), source: Some(source.into()) }
    }

    /// The Status behind the failure, where the server gave one.
    pub fn api(&self) -> Option<&ApiError> {
        match self {
            Error::Api(error) => Some(error),
            Error::Transport { .. }
            | Error::Timeout { .. }
            | Error::Decode(_)
            | Error::TooLarge { .. }
            | Error::Request(_) => None,
        }
    }

    /// Whether the very same call may succeed later.
    pub fn retryable(&self) -> bool {
        match self {
            Error::Api(error) => matches!(error.code, 429 | 500 | 502 | 503 | 504),
            Error::Transport { .. } | Error::Timeout { .. } | Error::Decode(_) => true,
            Error::TooLarge { .. } | Error::Request(_) => false,
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.api().is_some_and(|error| error.code == 404)
    }

    /// A conflict of revisions or preconditions, not the conflict of names that `is_already_exists` tells.
    pub fn is_conflict(&self) -> bool {
        self.api().is_some_and(|error| error.code == 409 && !error.is_already_exists())
    }

    pub fn is_already_exists(&self) -> bool {
        self.api().is_some_and(ApiError::is_already_exists)
    }

    /// The revision asked for is no longer kept (410, reasons Expired and Gone).
    pub fn is_expired(&self) -> bool {
        self.api().is_some_and(|error| error.code == 410)
    }

    /// The whole chain of causes on one line, for the one place that logs it.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }
}
