//! What is read of Ruby: what Ruby reads of it as far as it is literal, and never a panic, whatever is in a file.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/seeded.rs"]
mod seeded;

use ebs_bake::chef::ruby::{Script, Value};
use proptest::prelude::*;
use seeded::always;

/// The calls of a script: `run_list(recipe[a]@1, …)`, with `?` for what is not literal.
fn calls(text: &str) -> Option<Vec<String>> {
    fn shown(value: &Value) -> String {
        let all = |values: &[Value]| values.iter().map(shown).collect::<Vec<_>>().join(", ");
        match value {
            Value::Text(text, line) => format!("{text}@{line}"),
            Value::List(values) => format!("[{}]", all(values)),
            Value::Hash(pairs) => {
                let pairs = pairs.iter().map(|(key, value)| format!("{} => {}", shown(key), shown(value)));
                format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
            }
            Value::Opaque => "?".to_owned(),
        }
    }
    let script = Script::read(text)?;
    let arguments = |arguments: &Option<Vec<Value>>| match arguments {
        Some(values) => values.iter().map(shown).collect::<Vec<_>>().join(", "),
        None => "not literal".to_owned(),
    };
    Some(script.calls.iter().map(|call| format!("{}({})", call.name, arguments(&call.arguments))).collect())
}

#[test]
fn literals_of_ruby_are_read_however_they_are_written() {
    let cases = [
        ("name \"web\"", "name(web@1)"),
        ("name 'it''s'  # the web's name", "name(its@1)"),
        ("name('web')", "name(web@1)"),
        ("name %q(a (b) \\) c)", "name(a (b) ) c@1)"),
        ("name \"tab\\t\\\"q\\\" \\\\ \\#{x}\"", "name(tab\t\"q\" \\ #{x}@1)"),
        ("run_list \"recipe[a]\",\n  # and then\n\n  'role[b]'\n", "run_list(recipe[a]@1, role[b]@4)"),
        ("run_list(\n  \"a\",\n  \"b\",\n)", "run_list(a@2, b@3)"),
        ("run_list %w(\n  recipe[a]\n  role[b])", "run_list([recipe[a]@2, role[b]@3])"),
        ("run_list *%w{a b}, 'c'", "run_list(a@1, b@1, c@1)"),
        ("run_list [\"a\", [%w[b]]]", "run_list([a@1, [[b@1]]])"),
        ("env_run_lists 'prod' => ['a'], \"_default\" => []", "env_run_lists({prod@1 => [a@1], _default@1 => []})"),
        ("env_run_lists({ prod: %w(a), 'x': nil })", "env_run_lists({prod@1 => [a@1], x@1 => ?})"),
        ("depends \"a\", \"#{x}\", :b, 1.5, ?x, /y/", "depends(a@1, ?, ?, ?, ?, ?)"),
        ("depends 'a', \\\n  '>= 1.0'", "depends(a@1, >= 1.0@2)"),
        ("name 'a'; version '1.0.0'", "name(a@1) version(1.0.0@1)"),
        ("long_description <<-EOS.strip, 'b'\n  name 'no'\n  EOS\nname 'a'", "long_description(not literal) name(a@4)"),
        ("x <<~'A', <<B\n  name 'no'\n  A\nname 'no'\nB\nname 'a'", "x(?, ?) name(a@6)"),
        ("=begin\nname 'no'\n=end\nname 'a'\n__END__\nname 'no'", "name(a@4)"),
        ("%w(a b).each do |cb|\n  depends cb\nend\nname 'c'", "depends(a@1) depends(b@1) name(c@4)"),
        ("['a',\n'b'].each { |cb| depends cb, '>= 1' }", "depends(a@1, >= 1@2) depends(b@2, >= 1@2)"),
        ("\u{feff}name 'a'\r\nversion '1.0'\r\n", "name(a@1) version(1.0@2)"),
        ("x = 5\nname 'a'", "name(a@2)"),
    ];
    for (text, expected) in cases {
        assert_eq!(calls(text).map(|calls| calls.join(" ")).as_deref(), Some(expected), "{text}");
    }
}

#[test]
fn what_is_computed_or_depends_on_something_is_not_taken_for_literal() {
    let cases = [
        ("depends 'a' if x", "depends(not literal)"),
        ("version IO.read('VERSION') rescue '0.1.0'", "version(not literal)"),
        ("run_list ['a'] + more", "run_list(not literal)"),
        ("run_list base, 'a'", "run_list(not literal)"),
        ("run_list(*LIST)", "run_list(not literal)"),
        ("name 'a'.upcase", "name(not literal)"),
        ("name 'a'\n  .upcase\nversion '1.0.0'", "name(not literal) version(1.0.0@3)"),
        ("name \"a\" \"#{x}\"", "name(not literal)"),
        ("if x\n  depends 'a'\nelse\n  depends 'b'\nend\nname 'c'", "depends(not literal) depends(not literal) name(c@6)"),
        ("case x when 1 then depends 'a' end\nname 'c'", "depends(not literal) name(c@2)"),
        ("%w(a b).each do |cb|\n  depends cb if x\nend", "depends(not literal)"),
        ("list.each do |cb|\n  depends 'a'\nend\nname 'c'", "depends(not literal) name(c@4)"),
        ("[1].each { |x|\n  depends 'a'\n}\nname 'c'", "depends(not literal) name(c@4)"),
        ("while x do\n  depends 'a'\nend\nname 'c'", "depends(not literal) name(c@4)"),
        (
            "def f(x)\n  return if x\n  y = if x then 1 else 2 end\n  depends 'a' unless y\nend\nname 'c'",
            "depends(not literal) name(c@6)",
        ),
        ("class X < Y\n  name 'a'\n  def self.end; end\nend\nname 'c'", "name(not literal) name(c@5)"),
        ("self.name = 'a'\nFoo.name 'b'", ""),
        ("x = y ? 'a' : 'b'\nname 'c'", "name(c@2)"),
        ("x = 4 / 2 # it's / half\nname 'c'", "name(c@2)"),
        ("x = a % b / c\nname 'c'", "name(c@2)"),
        ("y.gsub(/['\"]/, '')\nname 'c'", "name(c@2)"),
        ("license name 'a'\nversion '1.0' if\n  x", "license(not literal) name(not literal) version(not literal)"),
        (
            "'x' or\n  name 'a'\nx rescue\n  name 'b'\nx ||\n  name 'c'",
            "name(not literal) x(not literal) name(not literal) name(not literal)",
        ),
        ("list << 'a'\nname 'c'", "list(not literal) name(c@2)"),
    ];
    for (text, expected) in cases {
        assert_eq!(calls(text).map(|calls| calls.join(" ")).as_deref(), Some(expected), "{text}");
    }
}

#[test]
fn a_file_that_is_not_understood_says_nothing() {
    let cases = [
        "name 'a'\nversion 'b",
        "name 'a'\nend",
        "name 'a')",
        "name ('a']",
        "x <<EOS\nname 'a'",
        "name %w(a",
        "name 'a'\0",
        "=begin\nname 'a'",
    ];
    for text in cases {
        assert_eq!(calls(text), None, "{text}");
    }
    assert_eq!(calls("if x\nname 'a'"), Some(vec!["name(not literal)".to_owned()]), "what is in an open block is conditional");
}

/// A name as run lists and dependencies have them, and how Ruby can write it.
fn literal() -> impl Strategy<Value = (String, u8)> {
    ("[a-z0-9_:@.\\[\\] \"'#\\\\(){}-]{1,12}", 0..4_u8)
}

fn written(text: &str, style: u8) -> String {
    match style {
        0 => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")),
        1 => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('#', "\\#")),
        2 => format!("%q!{}!", text.replace('\\', "\\\\")),
        _ => format!("('{}')", text.replace('\\', "\\\\").replace('\'', "\\'")),
    }
}

#[test]
fn literals_are_read_as_they_were_written() {
    let separator = proptest::sample::select(vec![", ", ",\n  ", ", # it's \"one\"\n"]);
    let strategy = (proptest::collection::vec(literal(), 1..6), separator, any::<bool>());
    always(strategy, |(names, separator, in_list)| {
        // `f ('a'), 'b'` is a call with one argument in Ruby.
        let styles = if in_list { 4 } else { 3 };
        let list = names.iter().map(|(text, style)| written(text, style % styles)).collect::<Vec<_>>().join(separator);
        let text = if in_list { format!("run_list([{list}])\nname 'last'\n") } else { format!("run_list {list}\nname 'last'\n") };
        let script = Script::read(&text).ok_or_else(|| TestCaseError::fail(text.clone()))?;
        let arguments = script.calls[0].arguments.clone().ok_or_else(|| TestCaseError::fail(text.clone()))?;
        let values = if let [Value::List(values)] = arguments.as_slice() { values.clone() } else { arguments };
        let read: Vec<&str> = values.iter().map(|value| if let Value::Text(text, _) = value { text } else { "?" }).collect();
        let wanted: Vec<&str> = names.iter().map(|(text, _)| text.as_str()).collect();
        prop_assert_eq!(read, wanted, "{}", text);
        prop_assert_eq!(script.calls.len(), 2);
        Ok(())
    });
}

#[test]
fn no_ruby_is_a_panic() {
    let piece = proptest::sample::select(vec![
        "name ",
        "run_list ",
        "\"a\"",
        "'",
        "\"",
        "#{",
        "}",
        "{",
        "(",
        ")",
        "[",
        "]",
        "%w",
        "%",
        "%q!",
        "/",
        "?",
        "\\",
        ":",
        "::",
        "<<~E",
        "<<'E",
        "\nE\n",
        "\n",
        "\r\n",
        ";",
        "do |x|",
        "end",
        "if x",
        ".each",
        "|x|",
        "*",
        "**",
        "=>",
        "=",
        ",",
        "@",
        "$",
        "$'",
        "\u{e9}",
        "?\u{e9}",
        "?\\",
        "\\\r",
        "=begin",
        "\n=begin\n",
        "\n=end\n",
        "__END__",
        "`",
        "&.",
        "..",
        "x:",
        "'x':",
        "0x1f",
        "1.",
        "!",
        "x?",
        "x!=",
        " ",
        "def ",
        "while ",
    ]);
    always(proptest::collection::vec(piece, 0..14), |pieces| {
        let _ = Script::read(&pieces.concat());
        Ok(())
    });
    always("\\PC{0,40}", |text| {
        let _ = Script::read(&text);
        Ok(())
    });
}

#[test]
fn long_files_are_read_in_their_time() {
    // Each of these took a time that grew with the square of its length in some version of the reader, or could have.
    for part in [
        "\n",
        "x\n",
        "(\n",
        "x\n\n.y\n",
        "'a', ",
        "[",
        "{ |x| ",
        "%w(a).each { |x| y x }\n",
        "<<A\nA\n",
        "\"#{",
        "x <<A, <<A, <<A\n",
    ] {
        let _ = Script::read(&part.repeat((1 << 20) / part.len()));
    }
}
