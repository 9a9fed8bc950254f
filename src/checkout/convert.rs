//! From a blob to the file's bytes, as git converts them: keyword, then line ends, then encoding.

use std::borrow::Cow;

use encoding_rs::Encoding;
use git2::Oid;

use super::attributes::{Crlf, Filter};

/// The file's bytes for the blob `id`. `None`: the filter names an encoding that is not known here.
pub fn to_file<'a>(blob: &'a [u8], id: Oid, filter: &Filter) -> Option<Cow<'a, [u8]>> {
    let mut bytes = Cow::Borrowed(blob);
    if filter.ident {
        bytes = expand_ident(blob, id).into();
    }
    if filter.crlf.is_some_and(|crlf| wants_crlf(&bytes, crlf)) {
        bytes = to_crlf(&bytes).into();
    }
    match &filter.encoding {
        Some(_) if bytes.is_empty() => Some(bytes),
        Some(name) => match encode(&bytes, name)? {
            Ok(encoded) => Some(encoded.into()),
            // Not in UTF-8, or with characters that the encoding has not: git writes such a blob as it is.
            Err(Unencodable) => Some(bytes),
        },
        None => Some(bytes),
    }
}

/// Puts the blob's name into `$Id$`, and into an `$Id: …$` that git has made; those of other systems stay.
fn expand_ident(blob: &[u8], id: Oid) -> Vec<u8> {
    let keyword = format!("Id: {id} $");
    let mut out = Vec::with_capacity(blob.len() + keyword.len());
    let mut rest = blob;
    while let Some(dollar) = rest.iter().position(|&byte| byte == b'$') {
        let (head, after) = rest.split_at(dollar + 1);
        out.extend_from_slice(head);
        rest = after;
        if let Some(length) = ident_length(rest) {
            out.extend_from_slice(keyword.as_bytes());
            rest = &rest[length..];
        }
    }
    out.extend_from_slice(rest);
    out
}

/// How long the keyword is that begins after a dollar, up to and with the next dollar.
fn ident_length(text: &[u8]) -> Option<usize> {
    match text.strip_prefix(b"Id")? {
        [b'$', ..] => Some(3),
        [b':', content @ ..] => {
            let end = content.iter().position(|&byte| byte == b'$')?;
            let content = &content[..end];
            // Spaces in between: the keyword of another system.
            let space = content.iter().skip(1).position(|&byte| byte == b' ').map(|position| position + 1);
            let foreign = content.contains(&b'\n') || space.is_some_and(|space| space + 1 < end);
            (!foreign).then_some(3 + end + 1)
        }
        _ => None,
    }
}

/// Whether line feeds become CRLF.
fn wants_crlf(bytes: &[u8], crlf: Crlf) -> bool {
    match crlf {
        Crlf::Always => true,
        Crlf::IfText => !bytes.contains(&b'\r') && is_text(bytes),
    }
}

/// git's guess for bytes without CR: no NUL, and at most one control character in 128.
fn is_text(bytes: &[u8]) -> bool {
    let is_control = |byte: u8| byte == 127 || (byte < 32 && !matches!(byte, b'\n' | 0x08 | b'\t' | 0x1b | 0x0c));
    let controls = bytes.iter().filter(|&&byte| is_control(byte)).count();
    let line_feeds = bytes.iter().filter(|&&byte| byte == b'\n').count();
    let printable = bytes.len() - controls - line_feeds;
    // DOS ended text files with this.
    let end_of_file = usize::from(bytes.last() == Some(&0x1a));
    !bytes.contains(&0) && printable / 128 >= controls - end_of_file
}

fn to_crlf(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 16);
    let mut previous = 0;
    for &byte in bytes {
        if byte == b'\n' && previous != b'\r' {
            out.push(b'\r');
        }
        out.push(byte);
        previous = byte;
    }
    out
}

/// The text cannot be written in the encoding.
struct Unencodable;

/// UTF-8 to another encoding. `None`: not a known one.
fn encode(bytes: &[u8], name: &str) -> Option<Result<Vec<u8>, Unencodable>> {
    let encoder = Encoder::of(&name.to_ascii_lowercase())?;
    Some(std::str::from_utf8(bytes).ok().and_then(|text| encoder.encode(text)).ok_or(Unencodable))
}

/// What writes an encoding.
enum Encoder {
    Unicode(UnicodeForm),
    /// Characters up to this one, a byte each.
    Narrow(u8),
    Other(&'static Encoding),
}

impl Encoder {
    /// `label` is in lower case.
    fn of(label: &str) -> Option<Encoder> {
        if let Some(form) = unicode_form(label) {
            return Some(Encoder::Unicode(form));
        }
        match label {
            // The Encoding Standard takes these for windows-1252; iconv, and so git, does not.
            "iso-8859-1" | "iso8859-1" | "iso_8859-1" | "latin1" | "latin-1" | "l1" => Some(Encoder::Narrow(0xff)),
            "ascii" | "us-ascii" => Some(Encoder::Narrow(0x7f)),
            _ => {
                let encoding = Encoding::for_label_no_replacement(label.as_bytes())?;
                (encoding.output_encoding() == encoding).then_some(Encoder::Other(encoding))
            }
        }
    }

    /// `None`: the encoding has not all of the characters.
    fn encode(&self, text: &str) -> Option<Vec<u8>> {
        match self {
            Encoder::Unicode(form) => Some(form.encode(text)),
            Encoder::Narrow(last) => up_to(text, *last),
            Encoder::Other(encoding) => {
                let (encoded, _, unmappable) = encoding.encode(text);
                (!unmappable).then(|| encoded.into_owned())
            }
        }
    }
}

/// Characters up to `last`, a byte each.
fn up_to(text: &str, last: u8) -> Option<Vec<u8>> {
    text.chars().map(|c| u8::try_from(c).ok().filter(|&byte| byte <= last)).collect()
}

/// A form of Unicode in units of 16 or 32 bits.
#[derive(Clone, Copy)]
struct UnicodeForm {
    wide: bool,
    big_endian: bool,
    byte_order_mark: bool,
}

/// Reads `utf-16`, `utf16le`, `utf-16be-bom` and so on (in lower case). Without a byte order git's iconv writes a mark and
/// little-endian units.
fn unicode_form(label: &str) -> Option<UnicodeForm> {
    let rest = label.strip_prefix("utf")?;
    let rest = rest.strip_prefix('-').unwrap_or(rest);
    let (wide, order) = match rest.strip_prefix("16") {
        Some(order) => (false, order),
        None => (true, rest.strip_prefix("32")?),
    };
    let (big_endian, byte_order_mark) = match order {
        "" => (false, true),
        "le" => (false, false),
        "be" => (true, false),
        "le-bom" if !wide => (false, true),
        "be-bom" if !wide => (true, true),
        _ => return None,
    };
    Some(UnicodeForm { wide, big_endian, byte_order_mark })
}

impl UnicodeForm {
    fn encode(self, text: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len() * if self.wide { 4 } else { 2 } + 4);
        let mark = self.byte_order_mark.then_some('\u{feff}');
        for c in mark.into_iter().chain(text.chars()) {
            if self.wide {
                let unit = u32::from(c);
                out.extend(if self.big_endian { unit.to_be_bytes() } else { unit.to_le_bytes() });
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.extend(if self.big_endian { unit.to_be_bytes() } else { unit.to_le_bytes() });
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ident(text: &str) -> String {
        String::from_utf8(expand_ident(text.as_bytes(), Oid::ZERO_SHA1)).unwrap()
    }

    #[test]
    fn keywords_of_git_are_expanded_and_others_stay() {
        let id = "0".repeat(40);
        assert_eq!(ident("a $Id$ b $Id: x $ c"), format!("a $Id: {id} $ b $Id: {id} $ c"));
        assert_eq!(ident("$Id:$"), format!("$Id: {id} $"));
        for same in ["$Id", "$Id: a\nb$", "$Id: file,v 1.2 $", "$Ident$", "$$", ""] {
            assert_eq!(ident(same), same);
        }
    }

    #[test]
    fn line_ends_become_crlf_once() {
        assert_eq!(to_crlf(b"a\nb\r\nc\n"), b"a\r\nb\r\nc\r\n");
        assert!(wants_crlf(b"a\nb\r\n", Crlf::Always) && !wants_crlf(b"a\nb\r\n", Crlf::IfText));
        assert!(!wants_crlf(b"a\0\n", Crlf::IfText) && wants_crlf(b"a\n\x1a", Crlf::IfText));
    }

    #[test]
    fn encodings_write_what_iconv_writes() {
        let encoded = |text: &str, name: &str| encode(text.as_bytes(), name).map(|result| result.ok());
        assert_eq!(encoded("a", "UTF-16"), Some(Some(b"\xff\xfea\0".to_vec())));
        assert_eq!(encoded("a", "utf-16be-BOM"), Some(Some(b"\xfe\xff\0a".to_vec())));
        assert_eq!(encoded("\u{1f600}", "UTF-16LE"), Some(Some(b"\x3d\xd8\x00\xde".to_vec())));
        assert_eq!(encoded("é", "ISO-8859-1"), Some(Some(b"\xe9".to_vec())));
        assert_eq!(encoded("€", "ISO-8859-1"), Some(None));
        assert_eq!(encoded("€", "windows-1252"), Some(Some(b"\x80".to_vec())));
        assert_eq!(encoded("あ", "SHIFT-JIS"), Some(Some(b"\x82\xa0".to_vec())));
        assert_eq!(encoded("a", "no-such-encoding"), None);
        assert_eq!(encoded("a", "iso-2022-kr"), None);
    }
}
