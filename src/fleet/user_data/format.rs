//! The formats that cloud-init and EC2 take (cloud-init, "User data formats"). Equal scripts give equal bytes.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::{Compression, GzBuilder};
use sha2::{Digest, Sha256};

/// The name under which cloud-init keeps the script.
const FILE_NAME: &str = "ebs-bake.sh";
/// Encoded lines of a MIME part are not longer (RFC 2045, 6.7).
const MIME_LINE: usize = 76;

/// A MIME archive with the script as its only part.
pub fn mime(script: &str) -> String {
    // What no script has by chance, and the same for the same script.
    let digest: String = Sha256::digest(script).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let boundary = format!("==ebs-bake-{digest}==");
    // Of 8bit, the library that cloud-init uses makes something else.
    let (charset, encoding, body) = match script.is_ascii() {
        true => ("us-ascii", "7bit", script.to_owned()),
        false => ("utf-8", "quoted-printable", quoted_printable(script)),
    };
    format!(
        "Content-Type: multipart/mixed; boundary=\"{boundary}\"\n\
         MIME-Version: 1.0\n\
         \n\
         --{boundary}\n\
         Content-Type: text/x-shellscript; charset=\"{charset}\"\n\
         MIME-Version: 1.0\n\
         Content-Transfer-Encoding: {encoding}\n\
         Content-Disposition: attachment; filename=\"{FILE_NAME}\"\n\
         \n\
         {body}\n\
         --{boundary}--\n"
    )
}

/// RFC 2045, 6.7: it costs less than Base64 where most is ASCII.
fn quoted_printable(text: &str) -> String {
    let mut encoded = String::new();
    for line in text.split_terminator('\n') {
        let mut width = 0;
        for (at, byte) in line.bytes().enumerate() {
            let blank = matches!(byte, b' ' | b'\t') && at + 1 < line.len();
            let symbol = match byte {
                _ if blank || byte.is_ascii_graphic() && byte != b'=' => char::from(byte).to_string(),
                _ => format!("={byte:02X}"),
            };
            if width + symbol.len() >= MIME_LINE {
                encoded += "=\n";
                width = 0;
            }
            width += symbol.len();
            encoded += &symbol;
        }
        encoded.push('\n');
    }
    encoded
}

/// One line.
pub fn base64(data: &[u8]) -> String {
    STANDARD.encode(data) + "\n"
}

/// Without a time and a file name.
pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzBuilder::new().write(Vec::new(), Compression::best());
    encoder.write_all(data).and_then(|()| encoder.finish()).expect("memory can be written to")
}
