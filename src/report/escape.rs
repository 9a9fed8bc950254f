//! Makes text that others wrote harmless where it is shown: nothing in it can move the cursor, start a line of its own, or
//! be taken for a command by a CI system.

use std::fmt::Write;

/// For logs and tables: one line. Control characters and what changes the direction of text are written as escapes, and so
/// is the first `#` of `##[` and `##vso[`, which GitHub's runner (`ActionCommand.TryParse` in actions/runner) and Azure's
/// agent obey anywhere in a line, so that a prefix does not help.
pub fn line(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        match c {
            '\t' => safe.push(' '),
            c if c.is_control() || is_invisible(c) => safe.extend(c.escape_default()),
            '#' if begins_command(&text[at..]) => safe.push_str("\\x23"),
            c => safe.push(c),
        }
    }
    safe
}

/// Without the escape sequences that set colours (`ESC [ … m`), which many programs write whoever reads them.
pub fn without_colors(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, ';' | ':'));
        match rest.strip_prefix('m') {
            Some(rest) => plain.push_str(rest),
            None => plain.extend(["\x1b[", part]),
        }
    }
    plain
}

/// Characters that show nothing, but change how their neighbours are shown, or end a line somewhere.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn begins_command(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("##") else { return false };
    rest.trim_start_matches(|c: char| c.is_ascii_alphabetic()).starts_with('[')
}

/// JSON text with the same guarantee: `#` can only be inside of its strings, where it may be written as an escape.
pub fn json(text: &str) -> String {
    text.replace("##", "\\u0023\\u0023")
}

/// For GitHub's `::error::` and the like: `%`, CR and LF as the runner reads them.
pub fn workflow_command(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// For a property of such a command, where `:` and `,` mean something too.
pub fn workflow_property(text: &str) -> String {
    workflow_command(text).replace(':', "%3A").replace(',', "%2C")
}

/// For a cell of a Markdown table: code, in which nothing is markup.
pub fn markdown(text: &str) -> String {
    let mut safe = String::from("<code>");
    for c in line(text).chars() {
        if c.is_ascii_punctuation() && !matches!(c, '-' | '.' | '/' | ',') {
            write!(safe, "&#{};", c as u32).expect("writing to a string cannot fail");
        } else {
            safe.push(c);
        }
    }
    safe + "</code>"
}

/// For an env file that is read by a shell, by Java's `Properties` and by GitLab: letters, digits and `_./:@+=,-` stay,
/// every other byte becomes `%` and two hexadecimal digits.
pub fn env_value(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"_./:@+=,-".contains(&byte) {
            safe.push(byte.into());
        } else {
            write!(safe, "%{byte:02X}").expect("writing to a string cannot fail");
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_a_line() {
        assert_eq!(line("a\r\nb\tc\x1b[31m"), "a\\r\\nb c\\u{1b}[31m");
        assert_eq!(line("abc\u{202e}fed\u{2028}x\u{85}"), "abc\\u{202e}fed\\u{2028}x\\u{85}");
        assert_eq!(line("käse ✓"), "käse ✓");
    }

    #[test]
    fn colours_go_and_what_moves_the_cursor_stays_to_be_escaped() {
        assert_eq!(without_colors("\x1b[1;32mgreen\x1b[0m \x1b[38:5:1mred\x1b[m"), "green red");
        assert_eq!(line(&without_colors("\x1b[2Jx\x1b[31")), "\\u{1b}[2Jx\\u{1b}[31");
    }

    #[test]
    fn commands_to_runners_are_broken_wherever_they_stand() {
        assert_eq!(line("remote: ##[add-mask]x"), "remote: \\x23#[add-mask]x");
        assert_eq!(line("x ##vso[task.setvariable]y"), "x \\x23#vso[task.setvariable]y");
        assert_eq!(line("###[stop-commands]"), "#\\x23#[stop-commands]");
        assert_eq!(line("## Heading [link]"), "## Heading [link]");
        let value = serde_json::json!({ "line": "##[add-mask]x" });
        let escaped = json(&value.to_string());
        assert!(!escaped.contains("##"), "{escaped}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
    }

    #[test]
    fn markdown_has_no_markup_left() {
        assert_eq!(markdown("a|b<script>"), "<code>a&#124;b&#60;script&#62;</code>");
        let hostile = markdown("[x](javascript:1) `y` *z* _w_ &lt; \\ ```mermaid\n");
        let inside = hostile.strip_prefix("<code>").unwrap().strip_suffix("</code>").unwrap();
        assert!(!inside.contains(['[', ']', '(', '`', '*', '_', '<', '\\', '\n']), "{inside}");
    }

    #[test]
    fn env_values_are_inert() {
        assert_eq!(env_value("https://example.com/a_b@c+d=e,f-g"), "https://example.com/a_b@c+d=e,f-g");
        assert_eq!(
            env_value("$(id) 'x' \"y\" `z` \\ ~ ä\n%41"),
            "%24%28id%29%20%27x%27%20%22y%22%20%60z%60%20%5C%20%7E%20%C3%A4%0A%2541"
        );
    }

    #[test]
    fn workflow_commands_are_one_line() {
        assert_eq!(workflow_command("50%\r\nof ::x::"), "50%25%0D%0Aof ::x::");
        assert_eq!(workflow_property("a,line=1::b\n"), "a%2Cline=1%3A%3Ab%0A");
    }
}
