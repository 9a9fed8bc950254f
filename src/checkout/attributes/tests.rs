use super::*;

fn attributes(files: &[(&str, &str)]) -> Attributes {
    let mut attributes = Attributes::default();
    for (directory, content) in files {
        attributes.add(directory.as_bytes(), content.as_bytes()).unwrap();
    }
    attributes
}

#[test]
fn nearer_files_and_later_lines_win() {
    let all = attributes(&[("", "* text eol=crlf\n*.sh eol=lf\n"), ("win/", "*.sh eol=crlf\n")]);
    assert_eq!(all.filter(b"a.txt").crlf, Some(Crlf::Always));
    assert_eq!(all.filter(b"a.sh").crlf, None);
    assert_eq!(all.filter(b"win/deep/a.sh").crlf, Some(Crlf::Always));
}

#[test]
fn macros_and_binary_are_expanded() {
    let all = attributes(&[("", "[attr]dos text=auto eol=crlf\n*.bat dos\nb.bat binary\nc.bat -dos\n")]);
    assert_eq!(all.filter(b"a.bat").crlf, Some(Crlf::IfText));
    assert_eq!(all.filter(b"b.bat").crlf, None);
    assert_eq!(all.filter(b"c.bat").crlf, None, "a macro that is negated is not expanded");
}

#[test]
fn quoted_patterns_and_damaged_lines() {
    let all = attributes(&[("", "\"a b\\041\" ident\n*.x =bad ident\n!*.y ident\ndir/ ident\n")]);
    assert!(all.filter(b"sub/a b!").ident);
    assert!(!all.filter(b"a.x").ident && !all.filter(b"a.y").ident && !all.filter(b"dir/a").ident);
}

#[test]
fn usual_attributes_need_no_look_up() {
    assert!(attributes(&[("", "* text=auto\n*.png binary\n*.sh text eol=lf\n*.rb diff=ruby\n")]).are_irrelevant());
    assert!(!attributes(&[("", "*.bat eol=crlf\n")]).are_irrelevant());
    assert!(attributes(&[("", "*.iso filter=lfs diff=lfs merge=lfs -text\n")]).is_lfs(b"dir/a.iso"));
}

#[test]
fn macros_that_stand_for_each_other_without_end_are_no_recursion() {
    let chain = |last: &str| -> String {
        let links = (0..40_000).map(|number| format!("[attr]m{number} m{}\n", number + 1));
        links.chain([format!("[attr]m40000 {last}\n* m0\n")]).collect()
    };
    let mut attributes = Attributes::default();
    attributes.add(b"", chain("m0").as_bytes()).unwrap();
    assert!(attributes.filter(b"x").is_identity());
    attributes = Attributes::default();
    attributes.add(b"", chain("eol=crlf").as_bytes()).unwrap();
    assert_eq!(attributes.filter(b"x").crlf, Some(Crlf::Always));
}

#[test]
fn a_few_objects_that_are_attribute_files_everywhere_are_refused() {
    let mut attributes = Attributes::default();
    let line = "x -a -b -c -d\n".repeat(3_000);
    let refused = (0..100).find_map(|number| attributes.add(format!("{number}/").as_bytes(), line.as_bytes()).err());
    assert!(refused.unwrap().to_string().contains(".gitattributes"));
}
