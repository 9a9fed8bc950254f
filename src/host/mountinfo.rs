//! `/proc/<pid>/mountinfo`: what is mounted where (`proc_pid_mountinfo(5)`).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MountInfo {
    /// The filesystem's device number.
    pub major: u64,
    pub minor: u64,
    /// Which directory of the filesystem is mounted.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// The filesystem's type.
    pub fstype: String,
    /// What was handed to `mount(2)` as the source.
    pub source: OsString,
}

/// The mounts that the calling thread sees, in their order: of two at one place the later one covers the earlier.
pub(super) fn of_this_thread() -> io::Result<Vec<MountInfo>> {
    of_process("thread-self")
}

/// The mounts that another process sees.
pub(super) fn of_process(pid: &str) -> io::Result<Vec<MountInfo>> {
    Ok(parse(&fs::read(format!("/proc/{pid}/mountinfo"))?))
}

/// The last mount at exactly this place.
pub(super) fn at<'a>(mounts: &'a [MountInfo], point: &Path) -> Option<&'a MountInfo> {
    mounts.iter().rev().find(|mount| mount.point == point)
}

pub(super) fn parse(text: &[u8]) -> Vec<MountInfo> {
    text.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

/// `id parent major:minor root point options [optional…] - type source options`
fn parse_line(line: &[u8]) -> Option<MountInfo> {
    let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let dash = fields.iter().position(|field| *field == b"-")?;
    let text = |field: &[u8]| std::str::from_utf8(field).ok().map(str::to_owned);
    let (major, minor) = std::str::from_utf8(fields.get(2)?).ok()?.split_once(':')?;
    Some(MountInfo {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        root: unescape(fields.get(3)?).into(),
        point: unescape(fields.get(4)?).into(),
        fstype: text(fields.get(dash + 1)?)?,
        source: unescape(fields.get(dash + 2)?),
    })
}

/// Space, tab, newline and backslash are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes)
}

/// Whether one path lies strictly below another.
pub(super) fn is_below(path: &Path, above: &Path) -> bool {
    path != above && path.starts_with(above) && !above.as_os_str().as_bytes().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"24 27 0:6 / /dev rw,relatime - devtmpfs devtmpfs rw,size=1k\n\
        99 27 7:3 / /code/my\\040chef\\134 rw,nosuid shared:1 master:2 - ext4 /dev/loop3 rw\n\
        garbage\n\
        100 27 7:4 / /code/my\\040chef\\134 rw - ext4 /dev/loop4 rw\n";

    #[test]
    fn mounts_are_read_with_their_escapes() {
        let mounts = parse(TEXT);
        assert_eq!(mounts.len(), 3);
        assert_eq!((mounts[0].major, mounts[0].minor, mounts[0].fstype.as_str()), (0, 6, "devtmpfs"));
        assert_eq!(mounts[1].point, Path::new("/code/my chef\\"));
        assert_eq!(mounts[1].source, "/dev/loop3");
        assert_eq!(at(&mounts, Path::new("/code/my chef\\")).unwrap().minor, 4, "the later one covers the earlier");
        assert_eq!(at(&mounts, Path::new("/code")), None);
    }

    #[test]
    fn the_calling_threads_mounts_can_be_read() {
        let mounts = of_this_thread().unwrap();
        assert!(at(&mounts, Path::new("/proc")).is_some());
    }

    #[test]
    fn below_means_strictly_below() {
        assert!(is_below(Path::new("/code/chef/sub"), Path::new("/code/chef")));
        assert!(!is_below(Path::new("/code/chef"), Path::new("/code/chef")));
        assert!(!is_below(Path::new("/code/chef2"), Path::new("/code/chef")));
    }
}
