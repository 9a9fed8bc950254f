//! What EC2 and Auto Scaling say of launch templates, groups and instance refreshes; the snapshot or version that is wanted is the last line.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (text, wanted) = text.rsplit_once('\n').unwrap_or((text, "snap-0123456789abcdef0"));
    ebs_bake::fleet::fuzzing::launch_template(text, wanted);
    ebs_bake::fleet::fuzzing::refresh(text, wanted);
});
