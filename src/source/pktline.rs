//! git's framing: four hexadecimal digits of length, then the payload; `0000` is a flush.

use std::io::{self, Read};

/// The longest packet that git permits.
const LONGEST: usize = 65520;

/// One packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    /// The end of a section.
    Flush,
    /// A payload, its final line feed included.
    Data(&'a [u8]),
}

impl<'a> Packet<'a> {
    /// The payload as a line of text without its line feed; `None` for a flush.
    pub fn line(&self) -> Option<&'a [u8]> {
        match self {
            Packet::Flush => None,
            Packet::Data(data) => Some(data.strip_suffix(b"\n").unwrap_or(data)),
        }
    }
}

/// Reads packets.
pub(super) struct Packets<R> {
    reader: R,
    buffer: Vec<u8>,
}

impl<R: Read> Packets<R> {
    pub fn new(reader: R) -> Self {
        Packets { reader, buffer: Vec::with_capacity(LONGEST) }
    }

    /// The next packet. The end of the stream is an error of kind `UnexpectedEof`.
    pub fn next(&mut self) -> io::Result<Packet<'_>> {
        let mut digits = [0; 4];
        self.reader.read_exact(&mut digits)?;
        let length = std::str::from_utf8(&digits)
            .ok()
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|text| usize::from_str_radix(text, 16).ok())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a git packet"))?;
        match length {
            0 => Ok(Packet::Flush),
            4..=LONGEST => {
                self.buffer.resize(length - 4, 0);
                self.reader.read_exact(&mut self.buffer)?;
                Ok(Packet::Data(&self.buffer))
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a git packet of impossible length")),
        }
    }
}

/// Appends one packet to a request.
pub(super) fn push(request: &mut Vec<u8>, payload: &str) {
    debug_assert!(payload.len() + 4 <= LONGEST);
    request.extend_from_slice(format!("{:04x}{payload}", payload.len() + 4).as_bytes());
}

/// Appends a flush to a request.
pub(super) fn flush(request: &mut Vec<u8>) {
    request.extend_from_slice(b"0000");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let mut bytes = Vec::new();
        push(&mut bytes, "want 1\n");
        flush(&mut bytes);
        push(&mut bytes, "done");
        assert_eq!(bytes, b"000bwant 1\n00000008done");
        let mut packets = Packets::new(bytes.as_slice());
        assert_eq!(packets.next().unwrap().line(), Some(&b"want 1"[..]));
        assert_eq!(packets.next().unwrap(), Packet::Flush);
        assert_eq!(packets.next().unwrap(), Packet::Data(b"done"));
        assert_eq!(packets.next().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn nonsense_is_an_error() {
        for bytes in [&b"<htm"[..], b"0001", b"0003", b"ffff", b"+004", b"000", b"0009ab", b"fff1aa"] {
            assert!(Packets::new(bytes).next().is_err(), "{bytes:?}");
        }
    }
}
