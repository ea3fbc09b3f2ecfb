//! Decides how several channels share one WebSocket: Kubernetes' `channel.k8s.io` subprotocols. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// The channels of exec and attach.
pub(crate) const STDIN: u8 = 0;
pub(crate) const STDOUT: u8 = 1;
pub(crate) const STDERR: u8 = 2;
pub(crate) const ERROR: u8 = 3;
pub(crate) const RESIZE: u8 = 4;
/// In version 5: the channel that follows was closed by the client.
const CLOSE: u8 = 255;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Protocol {
    pub(crate) name: &'static str,
    base64: bool,
    /// The client can close single channels.
    closes: bool,
    /// The error channel carries a Status rather than plain text.
    pub(crate) status: bool,
}

/// What is spoken, the version without a name last.
const PROTOCOLS: [Protocol; 6] = [
    Protocol { name: "v5.channel.k8s.io", base64: false, closes: true, status: true },
    Protocol { name: "v4.channel.k8s.io", base64: false, closes: false, status: true },
    Protocol { name: "v4.base64.channel.k8s.io", base64: true, closes: false, status: true },
    Protocol { name: "channel.k8s.io", base64: false, closes: false, status: false },
    Protocol { name: "base64.channel.k8s.io", base64: true, closes: false, status: false },
    Protocol { name: "", base64: false, closes: false, status: false },
];

/// The first of the offered protocols that is spoken; offering none means the one without a name.
pub(crate) fn choose(offered: &[String]) -> Option<Protocol> {
    let known = |name: &str| PROTOCOLS.into_iter().find(|protocol| protocol.name == name);
    if offered.is_empty() { known("") } else { offered.iter().find_map(|name| known(name)) }
}

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Data(u8, Bytes),
    Close(u8),
    /// Nothing that means anything; passed over.
    Nothing,
}

/// What is sent to a client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Binary(Vec<u8>),
    Text(String),
}

impl Protocol {
    /// Reads a message. An error names what breaks the protocol.
    pub(crate) fn hear(self, mut message: Bytes) -> Result<Heard, &'static str> {
        let Some(first) = message.first().copied() else { return Ok(Heard::Nothing) };
        if self.closes && first == CLOSE {
            return match message[1..] {
                [channel] if channel <= RESIZE => Ok(Heard::Close(channel)),
                [_] => Err("a channel that does not exist was closed"),
                _ => Err("the signal to close a channel names no single channel"),
            };
        }
        let data = message.split_off(1);
        if !self.base64 {
            return Ok(Heard::Data(first, data));
        }
        match STANDARD.decode(&data) {
            Ok(data) => Ok(Heard::Data(first.wrapping_sub(b'0'), data.into())),
            Err(_) => Ok(Heard::Nothing),
        }
    }

    /// Makes a message for a channel.
    pub(crate) fn say(self, channel: u8, data: &[u8]) -> Said {
        if self.base64 {
            let mut text = char::from(b'0' + channel).to_string();
            STANDARD.encode_string(data, &mut text);
            return Said::Text(text);
        }
        let mut message = Vec::with_capacity(data.len() + 1);
        message.push(channel);
        message.extend_from_slice(data);
        Said::Binary(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Protocol {
        choose(&[name.to_owned()]).unwrap()
    }

    #[test]
    fn the_client_s_first_known_choice_is_taken() {
        let offer = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let chosen = |names: &[&str]| choose(&offer(names)).map(|protocol| protocol.name);
        assert_eq!(chosen(&["v9.channel.k8s.io", "v5.channel.k8s.io"]), Some("v5.channel.k8s.io"));
        assert_eq!(chosen(&["v4.channel.k8s.io", "v5.channel.k8s.io"]), Some("v4.channel.k8s.io"));
        assert_eq!(chosen(&["something"]), None);
        assert_eq!(chosen(&[]), Some(""));
    }

    #[test]
    fn messages_name_their_channel() {
        let v5 = named("v5.channel.k8s.io");
        assert_eq!(v5.hear(Bytes::from_static(b"\0hi")), Ok(Heard::Data(STDIN, "hi".into())));
        assert_eq!(v5.hear(Bytes::from_static(b"\xff\0")), Ok(Heard::Close(STDIN)));
        assert!(v5.hear(Bytes::from_static(b"\xff\x09")).is_err());
        assert!(v5.hear(Bytes::from_static(b"\xff")).is_err());
        assert!(v5.hear(Bytes::from_static(b"\xff\0\0")).is_err());
        assert_eq!(v5.hear(Bytes::new()), Ok(Heard::Nothing));
        assert_eq!(v5.say(STDOUT, b"out"), Said::Binary(b"\x01out".to_vec()));
        let v4 = named("v4.channel.k8s.io");
        assert_eq!(v4.hear(Bytes::from_static(b"\xff\0")), Ok(Heard::Data(255, Bytes::from_static(b"\0"))));
    }

    #[test]
    fn text_protocols_use_digits_and_base64() {
        let v4 = named("v4.base64.channel.k8s.io");
        assert_eq!(v4.hear(Bytes::from_static(b"0Zm9vCgo=")), Ok(Heard::Data(STDIN, "foo\n\n".into())));
        assert_eq!(v4.hear(Bytes::from_static(b"0not base64!")), Ok(Heard::Nothing));
        assert_eq!(v4.say(STDOUT, b"\n"), Said::Text("1Cg==".into()));
    }
}
