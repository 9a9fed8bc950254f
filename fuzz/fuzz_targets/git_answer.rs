//! What a git host answers, and the reference that is looked for, separated by a line `%%`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let at = data.windows(4).position(|window| window == b"\n%%\n").unwrap_or(data.len());
    let wanted = String::from_utf8_lossy(data.get(at + 4..).unwrap_or(b"main"));
    ebs_bake::source::fuzzing::git_answer(&data[..at], wanted.trim());
    ebs_bake::source::fuzzing::objects(data);
});
