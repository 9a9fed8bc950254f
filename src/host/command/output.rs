//! Reading what a program writes: bounded, whatever it writes.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The most bytes of one line that are kept; what follows is dropped up to the next line.
pub(super) const LINE_LIMIT: usize = 4096;

/// How many lines of a program's output an error carries.
const TAIL_LINES: usize = 8;

/// Takes a program's output.
pub(super) trait Sink {
    /// Some bytes, in order, cut anywhere.
    fn bytes(&mut self, bytes: &[u8]);
    /// There are no more.
    fn finish(&mut self);
}

/// Cuts bytes into lines: without their end (`\n`, `\r\n`), never longer than [`LINE_LIMIT`], never invalid UTF-8.
pub(super) struct Lines<F: FnMut(&str)> {
    each: F,
    line: Vec<u8>,
    cut: bool,
}

impl<F: FnMut(&str)> Lines<F> {
    pub(super) fn new(each: F) -> Self {
        Lines { each, line: Vec::new(), cut: false }
    }

    fn push(&mut self, part: &[u8]) {
        let room = LINE_LIMIT - self.line.len();
        self.cut |= part.len() > room;
        self.line.extend_from_slice(&part[..part.len().min(room)]);
    }

    fn emit(&mut self) {
        let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        let mut text = String::from_utf8_lossy(line).into_owned();
        if self.cut {
            text.push('…');
        }
        (self.each)(&text);
        self.line.clear();
        self.cut = false;
    }
}

impl<F: FnMut(&str)> Sink for Lines<F> {
    fn bytes(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            match part.strip_suffix(b"\n") {
                Some(end) => {
                    self.push(end);
                    self.emit();
                }
                None => self.push(part),
            }
        }
    }

    fn finish(&mut self) {
        if !self.line.is_empty() {
            self.emit();
        }
    }
}

/// Keeps the last lines that are not empty.
#[derive(Default)]
pub(super) struct Tail {
    lines: VecDeque<String>,
    partial: Vec<u8>,
}

impl Tail {
    /// The lines, joined.
    pub(super) fn text(&self) -> String {
        self.lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    fn keep(&mut self, line: &str) {
        // Programs draw their progress over itself; what stands last on the line counts.
        let line = line.rsplit(['\r', '\u{8}']).find(|part| !part.trim().is_empty()).unwrap_or_default().trim_end();
        if line.is_empty() {
            return;
        }
        if self.lines.len() == TAIL_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line.to_owned());
    }
}

impl Sink for Tail {
    fn bytes(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            let room = LINE_LIMIT - self.partial.len();
            self.partial.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                self.finish();
            }
        }
    }

    fn finish(&mut self) {
        let line = String::from_utf8_lossy(&self.partial).into_owned();
        self.keep(&line);
        self.partial.clear();
    }
}

pub(super) fn set_nonblocking(reader: &io::PipeReader) -> io::Result<()> {
    fcntl(reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Waits for output for at most `patience` and hands on what there is; `false` when nobody can write any more.
pub(super) fn drain(reader: &mut io::PipeReader, sink: &mut dyn Sink, patience: Duration) -> io::Result<bool> {
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(reader.as_fd(), PollFlags::POLLIN)], timeout) {
        Ok(0) | Err(nix::errno::Errno::EINTR) => return Ok(true),
        Ok(_) => {}
        Err(errno) => return Err(errno.into()),
    }
    let mut buffer = [0; 8192];
    match reader.read(&mut buffer) {
        Ok(0) => Ok(false),
        Ok(length) => {
            sink.bytes(&buffer[..length]);
            Ok(true)
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(true),
        Err(error) => Err(error),
    }
}
