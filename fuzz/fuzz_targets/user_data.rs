//! Options of `user-data`, separated by NUL: what the script says is what was given, in every format.
#![no_main]

use std::io::Read;
use std::time::Duration;

use base64::Engine;
use ebs_bake::fleet::user_data::{Boot, Format, UserData, render};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut parts = text.split('\0');
    let mut part = || parts.next().unwrap_or_default().to_owned();
    let boot = Boot {
        role: part(),
        environment: Some(part()),
        volume_name: part(),
        device: part(),
        mount_point: part(),
        device_timeout: Duration::from_millis(1500),
        chef_path: Some(part()),
        cookbook_paths: vec![part(), part()],
        chef: Some(part()),
        chef_license: Some(part()),
        attempts: 3,
        retry_pause: Duration::from_secs(30),
        expect_commit: Some(part()),
        expect_repository: Some(part()),
        on_success: Some(part()),
        on_failure: Some(part()),
    };
    let script = boot.script();
    let json = serde_json::Value::from(boot.expect_repository.clone()).to_string();
    let repository = json[1..json.len() - 1].to_owned();
    for (name, value) in [
        ("role", Some(&boot.role)),
        ("environment", boot.environment.as_ref()),
        ("volume_name", Some(&boot.volume_name)),
        ("mount_point", Some(&boot.mount_point)),
        ("chef", boot.chef.as_ref()),
        ("expect_commit", boot.expect_commit.as_ref()),
        ("expect_repository", Some(&repository)),
        ("on_success", boot.on_success.as_ref()),
        ("on_failure", boot.on_failure.as_ref()),
    ] {
        assert_eq!(assigned(&script, name).as_deref(), value.map(String::as_str), "{name}");
    }
    formats(boot, &script);
});

/// What a shell assigns to a variable by the script's settings: single-quoted texts, with `\'` between them.
fn assigned(script: &str, wanted: &str) -> Option<String> {
    let mut rest = script.split_once("# settings: begin\n")?.1;
    loop {
        let (name, after) = rest.split_once('=')?;
        rest = after;
        let mut value = String::new();
        loop {
            if let Some(after) = rest.strip_prefix('\'') {
                let (text, after) = after.split_once('\'')?;
                value.push_str(text);
                rest = after;
            } else if let Some(after) = rest.strip_prefix("\\'") {
                value.push('\'');
                rest = after;
            } else {
                rest = rest.strip_prefix('\n')?;
                break;
            }
        }
        if name == wanted {
            return Some(value);
        }
    }
}

fn formats(boot: Boot, script: &str) {
    let render = |format| render(&UserData::Script(Box::new(boot.clone()), format)).ok();
    if let Some(data) = render(Format::Base64) {
        let text = String::from_utf8(data).expect("text");
        let decoded = base64::engine::general_purpose::STANDARD.decode(text.trim_end()).expect("Base64");
        assert!(decoded == script.as_bytes());
    }
    if let Some(data) = render(Format::Gzip) {
        let mut decoded = String::new();
        flate2::read::GzDecoder::new(&data[..]).read_to_string(&mut decoded).expect("gzip");
        assert!(decoded == script);
    }
    if let Some(data) = render(Format::Mime) {
        let text = String::from_utf8(data).expect("text");
        let (head, body) = text.split_once("attachment; filename=\"ebs-bake.sh\"\n\n").expect("a header");
        let (body, _) = body.rsplit_once("\n--").expect("an end");
        let body = if head.contains("quoted-printable") { decoded(body) } else { body.to_owned() };
        assert!(body.trim_end_matches('\n') == script.trim_end_matches('\n'), "the script is another in the MIME archive");
        assert!(!body.contains(text.split('"').nth(1).expect("a boundary")));
    }
}

/// RFC 2045, 6.7.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match (first, rest) {
            (b'=', [b'\n', after @ ..]) => rest = after,
            (b'=', [high, low, after @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).expect("digits");
                bytes.push(u8::from_str_radix(digits, 16).expect("digits"));
                rest = after;
            }
            _ => bytes.push(first),
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}
