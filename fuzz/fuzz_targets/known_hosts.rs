//! A file of known hosts, a host and its key, separated by NUL.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(3, |&byte| byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    let (text, host, key) = (String::from_utf8_lossy(part()), String::from_utf8_lossy(part()), part());
    for port in [22, 2222] {
        ebs_bake::source::fuzzing::known_hosts(&text, &host, port, key);
    }
});
