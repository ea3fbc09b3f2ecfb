//! Decides which keys a range means: etcd's reading of a key and a range end.

use std::ops::Bound;

use bytes::Bytes;

/// A range of keys in etcd's reading: an empty end is one key, `"\0"` is no end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyRange {
    start: Bytes,
    end: End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// Only the start itself.
    Single,
    /// Up to this key, without it.
    Before(Bytes),
    /// All that follow.
    Open,
}

impl KeyRange {
    pub(crate) fn new(key: &Bytes, range_end: &Bytes) -> KeyRange {
        let end = match range_end.as_ref() {
            b"" => End::Single,
            b"\0" => End::Open,
            _ => End::Before(range_end.clone()),
        };
        KeyRange { start: key.clone(), end }
    }

    pub(crate) fn start(&self) -> &Bytes {
        &self.start
    }

    /// The one key meant, if it is but one.
    pub(crate) fn single(&self) -> Option<&Bytes> {
        matches!(self.end, End::Single).then_some(&self.start)
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            End::Single => key == self.start.as_ref(),
            End::Before(end) => key < end.as_ref() && key >= self.start.as_ref(),
            End::Open => key >= self.start.as_ref(),
        }
    }

    /// Whether no key can lie in the range.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(&self.end, End::Before(end) if end <= &self.start)
    }

    /// The bounds for an ordered map; not to be used if the range is empty.
    pub(crate) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let start = Bound::Included(self.start.as_ref());
        match &self.end {
            End::Single => (start, start),
            End::Before(end) => (start, Bound::Excluded(end.as_ref())),
            End::Open => (start, Bound::Unbounded),
        }
    }

    /// Whether the range reaches past `key`: a key at or after `key` may lie in it.
    pub(crate) fn reaches(&self, key: &[u8]) -> bool {
        match &self.end {
            End::Single => self.start.as_ref() >= key,
            End::Before(end) => end.as_ref() > key,
            End::Open => true,
        }
    }

    /// Whether this range ends further out than the other one.
    pub(crate) fn outreaches(&self, other: &KeyRange) -> bool {
        match (&self.end, &other.end) {
            (_, End::Open) => false,
            (End::Open, _) => true,
            (End::Before(mine), End::Before(theirs)) => mine > theirs,
            (End::Before(mine), End::Single) => mine > &other.start,
            (End::Single, End::Before(theirs)) => self.start >= *theirs,
            (End::Single, End::Single) => self.start > other.start,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prefix_end;

    fn range(key: &'static [u8], end: &'static [u8]) -> KeyRange {
        KeyRange::new(&Bytes::from_static(key), &Bytes::from_static(end))
    }

    #[test]
    fn a_range_end_is_read_as_etcd_reads_it() {
        assert!(range(b"a", b"").contains(b"a"));
        assert!(!range(b"a", b"").contains(b"ab"));
        assert!(range(b"a", b"c").contains(b"bzz"));
        assert!(!range(b"a", b"c").contains(b"c"));
        assert!(range(b"b", b"\0").contains(b"zzz"));
        assert!(!range(b"b", b"\0").contains(b"a"));
        assert!(range(b"\0", b"\0").contains(b"\0"));
        assert!(range(b"b", b"a").is_empty());
        assert!(!range(b"b", b"a").contains(b"b"));
    }

    #[test]
    fn a_prefix_ends_before_the_next_prefix() {
        assert_eq!(prefix_end(b"/registry/pods/").as_ref(), b"/registry/pods0");
        assert_eq!(prefix_end(b"a\xff\xff").as_ref(), b"b");
        assert_eq!(prefix_end(b"\xff\xff").as_ref(), b"\0");
        assert_eq!(prefix_end(b"").as_ref(), b"\0");
    }

    #[test]
    fn a_range_reaches_a_key_unless_it_ends_before_it() {
        assert!(range(b"a", b"c").reaches(b"b"));
        assert!(!range(b"a", b"c").reaches(b"c"));
        assert!(range(b"a", b"").reaches(b"a"));
        assert!(!range(b"a", b"").reaches(b"b"));
        assert!(range(b"a", b"\0").reaches(b"zz"));
    }
}
