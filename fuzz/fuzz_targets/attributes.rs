//! `.gitattributes` of the root and of a directory, a path and a blob, separated by NUL.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(4, |&byte| byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    let (root, below, path, blob) = (part(), part(), part(), part());
    ebs_bake::checkout::fuzzing::attributes(root, below, path, blob);
    for name in path.split(|&byte| byte == b'/') {
        ebs_bake::checkout::fuzzing::name(name, blob.is_empty());
    }
});
