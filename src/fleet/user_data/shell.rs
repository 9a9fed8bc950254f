//! Words of a POSIX shell.

/// The word that every shell reads as exactly this value. A value has no NUL: no shell could hold it.
pub fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_looks_like_shell_stays_text() {
        assert_eq!(quoted("web"), "'web'");
        assert_eq!(quoted("it's $(id) `id` \"x\""), r#"'it'\''s $(id) `id` "x"'"#);
        assert_eq!(quoted(""), "''");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_shell_reads_the_value_that_was_quoted(
            values in prop::collection::vec(prop_oneof!["[^\\x00]{0,40}", "[ '\"`$();&|<>*?\\\\\n!#~-]{0,20}"], 1..8),
        ) {
            let words: Vec<String> = values.iter().map(|value| quoted(value)).collect();
            let script: String = words.iter().map(|word| format!("value={word}\nprintf '%s\\0' \"$value\"\n")).collect();
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            let expected: String = values.iter().map(|value| format!("{value}\0")).collect();
            prop_assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
            prop_assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
        }
    }
}
