//! Which names a tree may put onto a volume: those that `git fsck` accepts and Linux can hold.

/// The longest path that Linux resolves (`PATH_MAX` without its final NUL), in bytes.
const LONGEST_PATH: usize = 4095;
/// The longest name of a file on every filesystem that we know (`NAME_MAX`), in bytes.
const LONGEST_NAME: usize = 255;

/// Why `name`, one component of a path, must not be written; `None` when it may.
pub fn refusal(name: &[u8], is_symlink: bool) -> Option<&'static str> {
    if name.is_empty() || name == b"." || name == b".." {
        return Some("is not a file name");
    }
    if name.contains(&b'/') || name.contains(&0) {
        return Some("contains a path separator");
    }
    if name.len() > LONGEST_NAME {
        return Some("is longer than 255 bytes");
    }
    if is_dot_git(name) {
        return Some("is git's own directory in disguise");
    }
    if is_symlink && folds_to(name, b".gitmodules") {
        return Some("is a symbolic link that git would read its configuration from");
    }
    None
}

/// Whether the whole path is too long to be opened.
pub fn is_too_long(path: &[u8]) -> bool {
    path.len() > LONGEST_PATH
}

/// Whether some filesystem takes the name for `.git`: with HFS+ folding, or with NTFS short names, trailing dots and
/// streams, also behind a backslash. Linux takes it for another file, but what is baked may be copied anywhere.
fn is_dot_git(name: &[u8]) -> bool {
    folds_to(name, b".git") || name.split(|&byte| byte == b'\\').any(is_ntfs_dot_git)
}

/// `.git` or `git~1` as NTFS reads them: any case, then spaces and dots, up to the end or a stream's colon.
fn is_ntfs_dot_git(name: &[u8]) -> bool {
    let rest = [&b".git"[..], b"git~1"].into_iter().find_map(|dot_git| {
        let (head, rest) = name.split_at_checked(dot_git.len())?;
        head.eq_ignore_ascii_case(dot_git).then_some(rest)
    });
    let Some(rest) = rest else { return false };
    matches!(rest.iter().find(|&&byte| byte != b'.' && byte != b' '), None | Some(b':'))
}

/// Whether HFS+ takes `name` for `wanted` (ASCII, lower case): it ignores case and some invisible characters.
fn folds_to(name: &[u8], wanted: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(name) else { return false };
    let visible = text.chars().filter(|&c| !is_ignored_by_hfs(c));
    visible.map(|c| c.to_ascii_lowercase()).eq(wanted.iter().map(|&byte| char::from(byte)))
}

/// The characters that HFS+ leaves out of a comparison (Apple's technical note TN1150, as git's `utf8.c` lists them).
fn is_ignored_by_hfs(c: char) -> bool {
    matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_disguise_of_the_git_directory_is_refused() {
        for name in [
            &b".git"[..],
            b".GIT",
            b".gIt",
            b".git.",
            b".git . .",
            b".git ",
            b".git::$INDEX_ALLOCATION",
            b".git:x",
            b"git~1",
            b"GIT~1",
            b"git~1.",
            b"x\\.git",
            b".git\\x",
            b"a\\git~1\\b",
            ".g\u{200c}it".as_bytes(),
            "\u{feff}.Git".as_bytes(),
        ] {
            assert!(refusal(name, false).is_some(), "{:?}", String::from_utf8_lossy(name));
        }
    }

    #[test]
    fn names_that_are_no_names_are_refused() {
        for name in [&b""[..], b".", b"..", b"a/b", b"/etc", b"a\0b", &[b'x'; 256]] {
            assert!(refusal(name, false).is_some(), "{:?}", String::from_utf8_lossy(name));
        }
        assert!(is_too_long(&[b'x'; 4096]) && !is_too_long(&[b'x'; 4095]));
    }

    #[test]
    fn ordinary_names_are_accepted() {
        for name in [
            &b".gitignore"[..],
            b".gitattributes",
            b".github",
            b".git-x",
            b"git",
            b"git~2",
            b"git~1x",
            b"...",
            b"a b\nc",
            b"\xff\xfe",
            b"back\\slash",
            b"c:",
            "\u{200c}".as_bytes(),
            &[b'x'; 255],
        ] {
            assert_eq!(refusal(name, false), None, "{:?}", String::from_utf8_lossy(name));
        }
    }

    #[test]
    fn only_a_symlink_must_not_be_called_gitmodules() {
        assert_eq!(refusal(b".gitmodules", false), None);
        assert!(refusal(b".gitmodules", true).is_some());
        assert!(refusal(b".GitModules", true).is_some());
    }
}
