use std::time::Instant;

use super::output::LINE_LIMIT;
use super::*;

fn shell(script: &str) -> Shell {
    Shell { script: script.into(), directory: "/".into(), withheld: Vec::new() }
}

fn lines_of(script: &str) -> Vec<String> {
    let mut lines = Vec::new();
    shell(script).run(&Cancel::new(), |line| lines.push(line.to_owned())).unwrap();
    lines
}

fn is_alive(pid: &str) -> bool {
    // A killed process that nobody has reaped yet is not alive.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn programs_are_found_in_path_first_and_in_system_directories() {
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join("sh");
    std::fs::write(&own, "").unwrap();
    let path = directory.path().as_os_str();
    assert_eq!(find_in("sh", Some("/bin".as_ref())), Some("/bin/sh".into()));
    assert_ne!(find_in("sh", Some(path)), Some(own.clone()), "not executable");
    std::fs::set_permissions(&own, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(find_in("sh", Some(path)), Some(own));
    assert!(find_in("e2fsck", None).is_some_and(|found| found.ends_with("e2fsck")));
    assert_eq!(find_in("sh", Some(".".as_ref())), find_in("sh", None), "the current directory is never searched");
}

#[test]
fn missing_programs_are_named_with_their_package() {
    assert!(require(&["sh", "e2fsck"]).is_ok());
    let error = missing_error(&["mkfs.ext4", "resize2fs"]);
    assert_eq!(error.to_string(), "mkfs.ext4, resize2fs are not installed");
    assert_eq!((error.kind(), error.hint_text()), (Kind::Device, Some("install e2fsprogs")));
    let error = require(&["sh", "no-such-program"]).unwrap_err();
    assert_eq!(error.to_string(), "no-such-program is not installed");
}

#[test]
fn errors_carry_the_last_lines_only() {
    let script = "for i in $(seq 100); do echo line $i >&2; done; printf '10%%\\r20%%\\r'; exit 3";
    let output = Program::new("sh").args(["-c", script]).run(&Cancel::new()).unwrap();
    assert_eq!(output.code, 3);
    let expected: Vec<String> = (94..=100).map(|i| format!("line {i}")).chain(["20%".into()]).collect();
    assert_eq!(output.tail, expected.join("\n"));
    let error = Program::new("sh").args(["-c", "echo no such disk >&2; exit 8"]).run_ok(&Cancel::new()).unwrap_err();
    assert_eq!(error.to_string(), "sh failed with exit code 8");
    assert_eq!(error.causes(), ["no such disk"]);
}

#[test]
fn programs_get_a_bare_environment_and_no_input() {
    let output = Program::new("env").env("EXTRA", "1").run_ok(&Cancel::new()).unwrap();
    let mut names: Vec<_> = output.tail.lines().map(|line| line.split('=').next().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["EXTRA", "LANG", "PATH"]);
    assert_eq!(Program::new("cat").run_ok(&Cancel::new()).unwrap().tail, "");
}

#[test]
fn a_signal_is_an_error_that_names_it() {
    let error = Program::new("sh").args(["-c", "kill -SEGV $$"]).run(&Cancel::new()).unwrap_err();
    assert_eq!(error.to_string(), "sh: killed by SIGSEGV");
}

#[test]
fn lines_come_whole_bounded_and_as_valid_text() {
    assert_eq!(lines_of("echo one; printf 'two\\r\\nth' >&2; printf 'ree'"), ["one", "two", "three"]);
    assert_eq!(lines_of("printf 'a\\377b\\n\\n'"), ["a\u{fffd}b", ""]);
    let long = lines_of("head -c 1000000 /dev/zero | tr '\\0' x; echo; echo next");
    assert_eq!(long.len(), 2);
    assert_eq!(long[0], format!("{}…", "x".repeat(LINE_LIMIT)));
    assert_eq!(long[1], "next");
}

#[test]
fn the_users_command_runs_in_its_directory_without_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let withheld = vec!["HOME".to_owned()];
    let command = Shell { script: "pwd -P; echo \"[$HOME]\"; exit 7".into(), directory: directory.path().into(), withheld };
    let mut lines = Vec::new();
    let status = command.run(&Cancel::new(), |line| lines.push(line.to_owned())).unwrap();
    assert_eq!(status.code(), Some(7));
    assert_eq!(lines, [directory.path().canonicalize().unwrap().to_str().unwrap(), "[]"]);
    assert!(std::env::var_os("HOME").is_some(), "or the test shows nothing");
}

#[test]
fn what_the_command_leaves_running_is_ended() {
    let pids = lines_of("sleep 1000 & echo $!; (trap '' TERM HUP; exec sleep 1000) & echo $!");
    assert_eq!(pids.len(), 2);
    for pid in &pids {
        wait_until("a background child has ended", || !is_alive(pid));
    }
}

#[test]
fn a_daemon_that_holds_the_output_does_not_hang_the_run() {
    let pids = lines_of("setsid sleep 1000 & echo $!");
    // It left the group, so it lives; this test ends it.
    if let Ok(pid) = pids[0].parse() {
        let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

#[test]
fn cancelling_ends_a_command_that_ignores_sigterm_with_all_its_children() {
    let cancel = Cancel::new();
    let mut pids = Vec::new();
    let script = "trap '' TERM; sleep 1000 & echo $!; echo $$; while :; do sleep 1; done";
    let error = shell(script)
        .run(&cancel, |line| {
            pids.push(line.to_owned());
            if pids.len() == 2 {
                cancel.cancel(libc::SIGINT);
            }
        })
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted(libc::SIGINT));
    for pid in &pids {
        wait_until("the group has ended", || !is_alive(pid));
    }
}

#[test]
fn cancelling_lets_a_command_clean_up_first() {
    let cancel = Cancel::new();
    let mut lines = Vec::new();
    let script = "trap 'echo cleaned; exit' TERM; echo ready; while :; do sleep 0.05; done";
    let result = shell(script).run(&cancel, |line| {
        cancel.cancel(libc::SIGTERM);
        lines.push(line.to_owned());
    });
    assert_eq!(result.unwrap_err().kind(), Kind::Interrupted(libc::SIGTERM));
    // The shell may also say that its `sleep` was terminated.
    assert_eq!(lines.last().map(String::as_str), Some("cleaned"), "{lines:?}");
}
