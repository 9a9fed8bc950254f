//! `.gitmodules` of repositories that are called in all ways.
#![no_main]

use ebs_bake::source::Location;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for parent in ["https://example.com/a/b.git", "git@example.com:a/b", "/srv/a/b"] {
        let (parent, _) = Location::parse(parent).expect("a location");
        ebs_bake::source::fuzzing::submodules(text, &parent);
    }
});
