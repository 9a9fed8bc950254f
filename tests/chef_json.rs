//! What is read of JSON: what Chef's parser reads of it, and never a panic, whatever is in a file.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/seeded.rs"]
mod seeded;

use ebs_bake::chef::json::{self, Event, Step};
use proptest::prelude::*;
use seeded::always;

/// What is told of a text: `a/[]=x@3` for a string at its place and line.
fn told(text: &[u8]) -> Result<Vec<String>, String> {
    let mut told = Vec::new();
    let read = json::read(text, &mut |path, event, line| {
        let path: Vec<&str> = path.iter().map(|step| if let Step::Key(key) = step { key } else { "[]" }).collect();
        let event = match event {
            Event::Text(text) => format!("={text}"),
            other => format!(":{other:?}"),
        };
        told.push(format!("{}{event}@{line}", path.join("/")));
    });
    read.map(|()| told).map_err(|problem| format!("{}:{}: {}", problem.line, problem.column, problem.what))
}

#[test]
fn values_are_told_with_their_place_and_line() {
    let text = br#"// a role
{ "name": "w\u00e9b\t\ud83d\ude00", /* two
   lines */ "run_list": [ "role[a]",
    "recipe[b]", 5, null, {"x": true} ],
  "env": {"prod": [ "c" , []], "deep": {"er": {"than": "told"}}}, "n": -0.5e+3 }"#;
    let expected = [
        ":Object@2",
        "name=w\u{e9}b\t\u{1f600}@2",
        "run_list:Array@3",
        "run_list/[]=role[a]@3",
        "run_list/[]=recipe[b]@4",
        "run_list/[]:Number@4",
        "run_list/[]:Null@4",
        "run_list/[]:Object@4",
        "run_list/[]/x:Bool@4",
        "env:Object@5",
        "env/prod:Array@5",
        "env/prod/[]=c@5",
        "env/prod/[]:Array@5",
        "env/deep:Object@5",
        "env/deep/er:Object@5",
        "n:Number@5",
    ];
    assert_eq!(told(text).unwrap(), expected);
}

/// Each of these was seen to be refused by yajl 2.1 (`json_verify -c`).
#[test]
fn what_chef_refuses_is_refused_at_its_place() {
    let cases: [(&[u8], &str); 23] = [
        (b"", "1:1: the file is empty"),
        (b" \n // nothing", "2:12: the file is empty"),
        (b"\xef\xbb\xbf{}", "1:1: the file begins with a byte order mark, which Chef does not take"),
        (b"{\n  \"a\": [1,\n  ]\n}", "3:3: a value is expected"),
        (b"{\"a\": 1,}", "1:9: a key in double quotes is expected"),
        (b"{'a': 1}", "1:2: a key in double quotes or '}' is expected"),
        (b"{\"a\" 1}", "1:6: ':' is expected after a key"),
        (b"{\"a\": 1 \"b\": 2}", "1:9: ',' or '}' is expected"),
        (b"[1 2]", "1:4: ',' or ']' is expected"),
        (b"[1}", "1:3: ',' or ']' is expected"),
        (b"{} {}", "1:4: something follows the end of the value"),
        (b"{\"a\": ", "1:7: the file ends in the middle of a value"),
        (b"[\"\xc3\xa9\", \"", "1:8: the file ends in the middle of a string"),
        (b"[\"a\nb\"]", "1:4: a line end or another control character is in a string"),
        (b"[\"\xff\"]", "1:3: a string is not UTF-8"),
        (b"[\"\xc3(\"]", "1:3: a string is not UTF-8"),
        (b"[\"\\x\"]", "1:3: there is no such escape"),
        (b"[\"\\u12g4\"]", "1:3: \\u has less than four hexadecimal digits"),
        (b"[01]", "1:3: ',' or ']' is expected"),
        (b"[-]", "1:3: a digit is expected"),
        (b"[1.]", "1:4: a digit is expected"),
        (b"[nul]", "1:2: a value is expected"),
        (b"[/x]", "1:2: a value is expected"),
    ];
    for (text, expected) in cases {
        assert_eq!(told(text).unwrap_err(), expected, "{}", String::from_utf8_lossy(text));
    }
}

#[test]
fn what_chef_takes_is_taken() {
    let cases: [&[u8]; 8] = [
        b"{}// end",
        b"{}/* never closed",
        b"\x0b\x0c{}",
        b"[1E5, 123456789012345678901234567890]",
        b"{\"a\": 1, \"a\": 2}",
        b"[\"\xed\xa0\x80\"]",
        b"[\"\\ud800\", \"\\/\"]",
        b"5",
    ];
    for text in cases {
        assert!(told(text).is_ok(), "{}: {:?}", String::from_utf8_lossy(text), told(text));
    }
}

#[test]
fn a_file_may_be_as_deep_as_it_is_long() {
    let deep = [vec![b'['; 2_000_000], vec![b']'; 2_000_000]].concat();
    assert_eq!(told(&deep).unwrap().len(), 4, "only the first levels are told of");
    assert!(told(&deep[..3_999_999]).is_err());
    let keys = b"{\"a\":".repeat(500_000);
    assert!(told(&keys).is_err());
}

fn value() -> impl Strategy<Value = serde_json::Value> {
    let text = "[a-z\"\\\\/\u{e9}\u{1f600}\n\t\u{7}#]{0,6}";
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        text.prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            proptest::collection::btree_map(text, inner, 0..5).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

/// What should be told of a value, without lines.
fn expected(value: &serde_json::Value, path: &str, depth: usize, told: &mut Vec<String>) {
    use serde_json::Value::{Array, Bool, Null, Number, Object, String};
    let at = |step: &str| if depth == 0 { step.to_owned() } else { format!("{path}/{step}") };
    if depth > 3 {
        return;
    }
    told.push(match value {
        Null => format!("{path}:Null"),
        Bool(_) => format!("{path}:Bool"),
        Number(_) => format!("{path}:Number"),
        String(text) => format!("{path}={text}"),
        Array(_) => format!("{path}:Array"),
        Object(_) => format!("{path}:Object"),
    });
    match value {
        Array(items) => items.iter().for_each(|item| expected(item, &at("[]"), depth + 1, told)),
        Object(map) => map.iter().for_each(|(key, item)| expected(item, &at(key), depth + 1, told)),
        _ => {}
    }
}

#[test]
fn what_serde_writes_is_read_as_it_was() {
    always((value(), any::<bool>()), |(value, pretty)| {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let mut wanted = Vec::new();
        expected(&value, "", 0, &mut wanted);
        let told = told(text.as_bytes()).map_err(TestCaseError::fail)?;
        let without_lines: Vec<&str> = told.iter().map(|told| told.rsplit_once('@').unwrap().0).collect();
        prop_assert_eq!(without_lines, wanted);
        Ok(())
    });
}

#[test]
fn damaged_json_is_taken_only_if_it_is_json_and_is_never_a_panic() {
    let piece = proptest::sample::select(vec![
        "{", "}", "[", "]", ",", ":", "\"", "\"a\"", "\\", "\\u12", "//", "/*", "*/", "\n", " ", "1", "-", ".5", "e", "true",
        "nul", "\u{e9}",
    ]);
    let damage = proptest::collection::vec((any::<proptest::sample::Index>(), any::<bool>(), piece), 1..4);
    always((value(), damage), |(value, damage)| {
        let mut text = value.to_string().into_bytes();
        for (place, is_inserted, piece) in damage {
            let at = place.index(text.len() + 1);
            let end = if is_inserted { at } else { (at + 1).min(text.len()) };
            text.splice(at..end, piece.bytes());
        }
        let ours = told(&text);
        // Comments are none of JSON's, yajl does not look at halves of surrogate pairs, and takes numbers of any size; else both agree.
        let has = |part: &[u8]| text.windows(2).any(|two| two == part);
        match serde_json::from_slice::<serde_json::Value>(&text) {
            Ok(_) => prop_assert!(ours.is_ok(), "{ours:?}: {}", String::from_utf8_lossy(&text)),
            Err(error) if error.to_string().contains("number out of range") => {}
            Err(_) if has(b"//") || has(b"/*") || has(b"\\u") || std::str::from_utf8(&text).is_err() => {}
            Err(error) => prop_assert!(ours.is_err(), "{error}: {}", String::from_utf8_lossy(&text)),
        }
        Ok(())
    });
    always(proptest::collection::vec(any::<u8>(), 0..60), |bytes| {
        let _ = told(&bytes);
        Ok(())
    });
}
