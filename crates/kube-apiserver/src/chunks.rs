//! Bodies made piece by piece: a list is encoded as fast as its reader takes it, and never stands in memory as a whole.

use crate::respond::{Body, BodyError};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body::Frame;
use http_body_util::BodyExt;
use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Pieces are gathered up to this size before they go out as one frame.
pub const FRAME_BYTES: usize = 64 * 1024;

/// The pieces of a body, in order.
pub type Pieces = Box<dyn Iterator<Item = Result<Bytes, BodyError>> + Send>;

struct PieceBody {
    pieces: Pieces,
    gzip: Option<GzEncoder<Vec<u8>>>,
    done: bool,
}

/// A body of pieces, compressed on the way where asked.
pub fn body(pieces: Pieces, gzip: bool) -> Body {
    // Level 1 is upstream's choice: the answer is worth little time.
    let gzip = gzip.then(|| GzEncoder::new(Vec::new(), Compression::new(1)));
    PieceBody { pieces, gzip, done: false }.boxed_unsync()
}

impl PieceBody {
    /// The next frame; `None` at the end.
    fn next_frame(&mut self) -> Result<Option<Bytes>, BodyError> {
        let mut plain: Vec<u8> = Vec::new();
        loop {
            if self.done {
                return Ok(None);
            }
            match self.pieces.next().transpose()? {
                Some(piece) => match &mut self.gzip {
                    Some(encoder) => encoder.write_all(&piece)?,
                    None if plain.is_empty() && piece.len() >= FRAME_BYTES => return Ok(Some(piece)),
                    None => plain.extend_from_slice(&piece),
                },
                None => {
                    self.done = true;
                    let rest = match self.gzip.take() {
                        Some(encoder) => encoder.finish()?,
                        None => plain,
                    };
                    return Ok((!rest.is_empty()).then(|| rest.into()));
                }
            }
            if let Some(encoder) = &mut self.gzip {
                if encoder.get_ref().len() >= FRAME_BYTES {
                    return Ok(Some(std::mem::take(encoder.get_mut()).into()));
                }
            } else if plain.len() >= FRAME_BYTES {
                return Ok(Some(plain.into()));
            }
        }
    }
}

impl http_body::Body for PieceBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.next_frame() {
            Ok(Some(bytes)) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Ok(None) => Poll::Ready(None),
            Err(error) => {
                self.done = true;
                Poll::Ready(Some(Err(error)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    async fn gather(gzip: bool) -> Vec<u8> {
        let pieces = (0..100_000).map(|at| Ok(Bytes::from(format!("{at},"))));
        body(Box::new(pieces), gzip).collect().await.unwrap().to_bytes().to_vec()
    }

    #[tokio::test]
    async fn pieces_arrive_whole_plain_and_compressed() {
        let plain = gather(false).await;
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(gather(true).await.as_slice()).read_to_end(&mut unpacked).unwrap();
        assert_eq!(plain, unpacked);
        assert!(plain.ends_with(b"99999,"));
    }
}
