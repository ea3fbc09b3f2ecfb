//! Decides what SPDY/3.1 frames look like on the wire. Pure: bytes in, frames out, and back.
//!
//! Data is handed on in pieces as it arrives, so that a frame's length never decides how much is kept.

use bytes::{Buf, Bytes, BytesMut};

use super::headers::{Headers, Packer, Unpacker};

/// The largest control frame taken.
const MAX_CONTROL: usize = 64 << 10;
/// The largest piece of data handed on at once, and the largest frame sent.
pub(crate) const MAX_PIECE: usize = 32 << 10;

const FIN: u8 = 1;
const UNIDIRECTIONAL: u8 = 2;

/// Bytes that are not SPDY/3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub(crate) &'static str);

/// A frame, or a piece of a data frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    SynStream { id: u32, headers: Headers, fin: bool, unidirectional: bool },
    SynReply { id: u32, headers: Headers, fin: bool },
    RstStream { id: u32, status: u32 },
    Settings(Vec<(u32, u32)>),
    Ping(u32),
    GoAway { last: u32, status: u32 },
    Headers { id: u32, headers: Headers, fin: bool },
    WindowUpdate { id: u32, delta: u32 },
    Data { id: u32, data: Bytes, fin: bool },
}

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GO_AWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// Turns frames into bytes.
#[derive(Debug)]
pub(crate) struct Encoder(Packer);

impl Encoder {
    pub(crate) fn new() -> Encoder {
        Encoder(Packer::new())
    }

    /// The bytes of a frame; the data of a data frame follows by itself, uncopied.
    pub(crate) fn encode(&mut self, frame: &Frame) -> Result<Vec<u8>, Malformed> {
        let id = |id: u32| id.to_be_bytes().to_vec();
        let flags = |fin: bool| if fin { FIN } else { 0 };
        let pair = |one: u32, two: u32| [one.to_be_bytes(), two.to_be_bytes()].concat();
        match frame {
            Frame::SynStream { id: stream, headers, fin, unidirectional } => {
                let mut payload = pair(*stream, 0);
                payload.extend_from_slice(&[0, 0]);
                payload.extend(self.0.pack(headers)?);
                let one_way = if *unidirectional { UNIDIRECTIONAL } else { 0 };
                control(SYN_STREAM, flags(*fin) | one_way, &payload)
            }
            Frame::SynReply { id: stream, headers, fin } => {
                control(SYN_REPLY, flags(*fin), &[id(*stream), self.0.pack(headers)?].concat())
            }
            Frame::Headers { id: stream, headers, fin } => {
                control(HEADERS, flags(*fin), &[id(*stream), self.0.pack(headers)?].concat())
            }
            Frame::RstStream { id: stream, status } => control(RST_STREAM, 0, &pair(*stream, *status)),
            Frame::Settings(settings) => {
                let mut payload = (settings.len() as u32).to_be_bytes().to_vec();
                for (setting, value) in settings {
                    payload.extend(pair(*setting, *value));
                }
                control(SETTINGS, 0, &payload)
            }
            Frame::Ping(number) => control(PING, 0, &id(*number)),
            Frame::GoAway { last, status } => control(GO_AWAY, 0, &pair(*last, *status)),
            Frame::WindowUpdate { id: stream, delta } => control(WINDOW_UPDATE, 0, &pair(*stream, *delta)),
            Frame::Data { id: stream, data, fin } => {
                let length = u32::try_from(data.len()).ok().filter(|length| *length < 1 << 24);
                let length = length.ok_or(Malformed("a data frame is too large"))?;
                Ok(pair(*stream, u32::from(flags(*fin)) << 24 | length))
            }
        }
    }
}

fn control(kind: u16, flags: u8, payload: &[u8]) -> Result<Vec<u8>, Malformed> {
    let length = u32::try_from(payload.len()).ok().filter(|length| *length < 1 << 24);
    let length = length.ok_or(Malformed("a control frame is too large"))?;
    let mut bytes = Vec::with_capacity(8 + payload.len());
    bytes.extend_from_slice(&0x8003_u16.to_be_bytes());
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&(u32::from(flags) << 24 | length).to_be_bytes());
    bytes.extend_from_slice(payload);
    Ok(bytes)
}

/// Turns bytes into frames.
#[derive(Debug)]
pub(crate) struct Decoder {
    unpacker: Unpacker,
    /// The data frame whose data is still coming: its stream, what is left, whether it ends the stream.
    data: Option<(u32, usize, bool)>,
}

impl Decoder {
    pub(crate) fn new() -> Decoder {
        Decoder { unpacker: Unpacker::new(), data: None }
    }

    /// Takes the next frame, or piece of one, from the start of `bytes`; `None` if more must come first.
    pub(crate) fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Frame>, Malformed> {
        loop {
            if let Some((id, left, fin)) = self.data {
                return Ok(self.piece(bytes, id, left, fin));
            }
            let Some(head) = bytes.first_chunk::<8>() else { return Ok(None) };
            let [first, .., flags, _, _, _] = *head;
            let word = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
            if first & 0x80 == 0 {
                bytes.advance(8);
                self.data = Some((word, length, flags & FIN != 0));
                continue;
            }
            if length > MAX_CONTROL {
                return Err(Malformed("a control frame is too large"));
            }
            if bytes.len() < 8 + length {
                return Ok(None);
            }
            bytes.advance(8);
            let payload = bytes.split_to(length);
            if word >> 16 != 0x8003 {
                return Err(Malformed("a control frame is not of SPDY version 3"));
            }
            if let Some(frame) = self.control(word as u16, flags, &payload)? {
                return Ok(Some(frame));
            }
        }
    }

    fn piece(&mut self, bytes: &mut BytesMut, id: u32, left: usize, fin: bool) -> Option<Frame> {
        let length = left.min(bytes.len()).min(MAX_PIECE);
        if length == 0 && left > 0 {
            return None;
        }
        let data = bytes.split_to(length).freeze();
        let left = left - length;
        self.data = (left > 0).then_some((id, left, fin));
        Some(Frame::Data { id, data, fin: fin && left == 0 })
    }

    /// A control frame; `None` for one of a kind that may be passed over.
    fn control(&mut self, kind: u16, flags: u8, payload: &[u8]) -> Result<Option<Frame>, Malformed> {
        let mut rest = payload;
        let fin = flags & FIN != 0;
        let frame = match kind {
            SYN_STREAM => {
                let id = stream(&mut rest)?;
                let block = rest.get(6..).ok_or(CUT_OFF)?;
                let headers = self.unpacker.unpack(block)?;
                Frame::SynStream { id, headers, fin, unidirectional: flags & UNIDIRECTIONAL != 0 }
            }
            SYN_REPLY => {
                let id = stream(&mut rest)?;
                Frame::SynReply { id, headers: self.unpacker.unpack(rest)?, fin }
            }
            HEADERS => {
                let id = stream(&mut rest)?;
                Frame::Headers { id, headers: self.unpacker.unpack(rest)?, fin }
            }
            RST_STREAM => Frame::RstStream { id: stream(&mut rest)?, status: number(&mut rest)? },
            SETTINGS => {
                let count = number(&mut rest)? as usize;
                if rest.len() != count.saturating_mul(8) {
                    return Err(CUT_OFF);
                }
                let mut settings = Vec::with_capacity(count);
                for _ in 0..count {
                    settings.push((number(&mut rest)?, number(&mut rest)?));
                }
                Frame::Settings(settings)
            }
            PING => Frame::Ping(number(&mut rest)?),
            GO_AWAY => Frame::GoAway { last: stream(&mut rest)?, status: number(&mut rest)? },
            WINDOW_UPDATE => Frame::WindowUpdate { id: stream(&mut rest)?, delta: number(&mut rest)? },
            _ => return Ok(None),
        };
        Ok(Some(frame))
    }
}

const CUT_OFF: Malformed = Malformed("a control frame is cut off");

fn number(rest: &mut &[u8]) -> Result<u32, Malformed> {
    let (head, tail) = rest.split_first_chunk::<4>().ok_or(CUT_OFF)?;
    *rest = tail;
    Ok(u32::from_be_bytes(*head))
}

fn stream(rest: &mut &[u8]) -> Result<u32, Malformed> {
    Ok(number(rest)? & 0x7fff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<Frame> {
        let headers = Headers::from([("streamType", "stdin")]);
        vec![
            Frame::SynStream { id: 1, headers: headers.clone(), fin: false, unidirectional: false },
            Frame::SynReply { id: 1, headers: Headers::default(), fin: false },
            Frame::Data { id: 1, data: Bytes::from_static(b"hello"), fin: false },
            Frame::Settings(vec![(4, 100), (7, 65536)]),
            Frame::Ping(7),
            Frame::WindowUpdate { id: 1, delta: 65536 },
            Frame::Headers { id: 1, headers, fin: true },
            Frame::Data { id: 1, data: Bytes::new(), fin: true },
            Frame::RstStream { id: 3, status: 5 },
            Frame::GoAway { last: 1, status: 0 },
        ]
    }

    fn bytes() -> Vec<u8> {
        let mut encoder = Encoder::new();
        let mut bytes = Vec::new();
        for frame in frames() {
            bytes.extend(encoder.encode(&frame).unwrap());
            if let Frame::Data { data, .. } = &frame {
                bytes.extend_from_slice(data);
            }
        }
        bytes
    }

    #[test]
    fn frames_come_back_however_the_bytes_arrive() {
        let bytes = bytes();
        for step in [1, 2, 3, 7, bytes.len()] {
            let mut decoder = Decoder::new();
            let mut arrived = BytesMut::new();
            let mut decoded: Vec<Frame> = Vec::new();
            for part in bytes.chunks(step) {
                arrived.extend_from_slice(part);
                while let Some(frame) = decoder.decode(&mut arrived).unwrap() {
                    match (decoded.last_mut(), frame) {
                        // Pieces of one frame are put together again to compare.
                        (Some(Frame::Data { data: before, fin, .. }), Frame::Data { data, fin: now, .. })
                            if !*fin =>
                        {
                            *before = [before.as_ref(), data.as_ref()].concat().into();
                            *fin = now;
                        }
                        (_, frame) => decoded.push(frame),
                    }
                }
            }
            assert_eq!(decoded, frames(), "in steps of {step}");
            assert!(arrived.is_empty());
        }
    }

    #[test]
    fn the_wire_is_as_published() {
        let mut encoder = Encoder::new();
        let hex = |frame: &Frame, encoder: &mut Encoder| {
            encoder.encode(frame).unwrap().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        assert_eq!(hex(&Frame::Ping(7), &mut encoder), "800300060000000400000007");
        assert_eq!(
            hex(&Frame::RstStream { id: 3, status: 5 }, &mut encoder),
            "80030003000000080000000300000005"
        );
        let data = Frame::Data { id: 1, data: Bytes::from_static(b"abc"), fin: true };
        assert_eq!(hex(&data, &mut encoder), "0000000101000003");
    }

    #[test]
    fn damage_is_refused_and_never_panics() {
        let whole = bytes();
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut damaged = BytesMut::from(&whole[..]);
                damaged[at] ^= 1 << bit;
                let mut decoder = Decoder::new();
                while let Ok(Some(_)) = decoder.decode(&mut damaged) {}
            }
        }
        let mut large = BytesMut::from(&[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff][..]);
        assert_eq!(Decoder::new().decode(&mut large), Err(Malformed("a control frame is too large")));
    }

    #[test]
    fn a_large_frame_comes_in_pieces() {
        let mut bytes = BytesMut::from(&[0, 0, 0, 1, 1, 0xff, 0xff, 0xff][..]);
        bytes.extend_from_slice(&vec![7; MAX_PIECE + 10]);
        let mut decoder = Decoder::new();
        let Ok(Some(Frame::Data { data, fin: false, .. })) = decoder.decode(&mut bytes) else { panic!() };
        assert_eq!(data.len(), MAX_PIECE);
        let Ok(Some(Frame::Data { data, fin: false, .. })) = decoder.decode(&mut bytes) else { panic!() };
        assert_eq!(data.len(), 10);
        assert_eq!(decoder.decode(&mut bytes), Ok(None));
    }
}
