//! A git host for tests: `git http-backend` behind a small HTTP server on the loopback interface, with faults to order.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What the server does other than its duty.
#[derive(Debug, Clone, Default)]
pub enum Fault {
    #[default]
    None,
    /// Answers with this status.
    Status(u16),
    /// Answers the first request with a redirect to this URL, in which `{}` stands for what was asked for.
    Redirect(String),
    /// Sends half of an answer to a POST, then closes the connection.
    Truncate,
    /// Sends half of an answer to a POST, then nothing more.
    Stall,
    /// Answers with a page.
    Page,
    /// Runs a command (in the root directory) before it answers the first POST.
    BeforePost(Vec<String>),
    /// Closes the connection after every answer.
    Close,
    /// Answers a GET with the first body and a POST with the second one.
    Answers(Vec<u8>, Vec<u8>),
    /// Answers a GET with the first body; a POST with the second one, and then the third one again and again, for as long as it is read.
    /// Without a first one, it is the GET that has no end.
    Endless(Option<Vec<u8>>, Vec<u8>, Vec<u8>),
}

/// Names (of requests in lower case) and values.
type Headers = Vec<(String, String)>;

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub authorization: Option<String>,
    /// Counts connections from zero.
    pub connection: usize,
}

/// A running server; ends when dropped.
pub struct GitServer {
    pub address: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    root: PathBuf,
    requests: Mutex<Vec<Request>>,
    fault: Mutex<Fault>,
    /// `user:password`
    login: Mutex<Option<String>>,
    stop: AtomicBool,
    /// How many bytes of an answer without end were taken.
    sent: AtomicU64,
}

impl GitServer {
    /// Serves the repositories below `root`.
    pub fn start(root: &Path) -> GitServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            root: root.to_path_buf(),
            requests: Mutex::default(),
            fault: Mutex::default(),
            login: Mutex::default(),
            stop: AtomicBool::new(false),
            sent: AtomicU64::new(0),
        });
        let accepting = shared.clone();
        let thread = std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                if accepting.stop.load(Ordering::SeqCst) {
                    return;
                }
                let shared = accepting.clone();
                let stream = stream.unwrap();
                std::thread::spawn(move || shared.serve(&stream, number));
            }
        });
        GitServer { address, shared, thread: Some(thread) }
    }

    pub fn url(&self, repository: &str) -> String {
        format!("http://{}/{repository}", self.address)
    }

    pub fn fault(&self, fault: Fault) {
        self.shared.sent.store(0, Ordering::SeqCst);
        *self.shared.fault.lock().unwrap() = fault;
    }

    /// How many bytes of answers without end were taken since that fault was ordered.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }

    pub fn require_login(&self, login: &str) {
        *self.shared.login.lock().unwrap() = Some(login.to_owned());
    }

    /// The requests since the last call.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.shared.requests.lock().unwrap())
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn serve(&self, stream: &TcpStream, connection: usize) {
        stream.set_nodelay(true).unwrap();
        let mut reader = BufReader::new(stream);
        // Errors are the client going away: nothing to do.
        while let Some((request, headers, body)) = read_request(&mut reader, connection) {
            self.requests.lock().unwrap().push(request.clone());
            if !self.answer(stream, &request, &headers, &body).unwrap_or(false) {
                return;
            }
        }
    }

    /// Whether the connection stays open.
    fn answer(
        &self,
        mut stream: &TcpStream,
        request: &Request,
        headers: &[(String, String)],
        body: &[u8],
    ) -> std::io::Result<bool> {
        let fault = self.fault.lock().unwrap().clone();
        let post = request.method == "POST";
        match &fault {
            Fault::Status(code) => return respond(stream, *code, &[], b"no").map(|()| true),
            Fault::Page => return respond(stream, 200, &[("Content-Type", "text/html")], b"<html>").map(|()| true),
            Fault::Redirect(to) => {
                *self.fault.lock().unwrap() = Fault::None;
                let to = to.replace("{}", &request.path);
                return respond(stream, 301, &[("Location", &to)], b"").map(|()| true);
            }
            _ => {}
        }
        if let Some(login) = self.login.lock().unwrap().as_ref() {
            use base64::Engine;
            let expected = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(login));
            if request.authorization.as_ref() != Some(&expected) {
                return respond(stream, 401, &[("WWW-Authenticate", "Basic realm=\"x\"")], b"who?").map(|()| true);
            }
        }
        if let (Fault::BeforePost(command), true) = (&fault, post) {
            *self.fault.lock().unwrap() = Fault::None;
            assert!(Command::new(&command[0]).args(&command[1..]).current_dir(&self.root).status().unwrap().success());
        }
        match &fault {
            Fault::Answers(refs, pack) => {
                let body = if post { pack } else { refs };
                return respond(stream, 200, &[("Content-Type", content_type(post))], body).map(|()| true);
            }
            Fault::Endless(Some(refs), ..) if !post => {
                return respond(stream, 200, &[("Content-Type", content_type(post))], refs).map(|()| true);
            }
            Fault::Endless(_, first, again) => {
                stream.write_all(format!("HTTP/1.1 200 X\r\nContent-Type: {}\r\n\r\n", content_type(post)).as_bytes())?;
                stream.write_all(first)?;
                while !self.stop.load(Ordering::SeqCst) {
                    stream.write_all(again)?;
                    self.sent.fetch_add(again.len() as u64, Ordering::SeqCst);
                }
                return Ok(false);
            }
            _ => {}
        }
        let (status, answer_headers, answer) = self.run_backend(request, headers, body);
        let mut names: Vec<(&str, &str)> = answer_headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        match fault {
            Fault::Truncate | Fault::Stall if post => {
                write_head(stream, status, &names, answer.len())?;
                stream.write_all(&answer[..answer.len() / 2])?;
                while matches!(fault, Fault::Stall) && !self.stop.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Ok(false)
            }
            Fault::Close => {
                names.push(("Connection", "close"));
                respond(stream, status, &names, &answer).map(|()| false)
            }
            _ => respond(stream, status, &names, &answer).map(|()| true),
        }
    }

    fn run_backend(&self, request: &Request, headers: &[(String, String)], body: &[u8]) -> (u16, Headers, Vec<u8>) {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let header = |name: &str| headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
        let mut child = Command::new("git")
            .arg("http-backend")
            .env("GIT_PROJECT_ROOT", &self.root)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "safe.directory")
            .env("GIT_CONFIG_VALUE_0", "*")
            .env("PATH_INFO", path)
            .env("QUERY_STRING", query)
            .env("REQUEST_METHOD", &request.method)
            .env("CONTENT_TYPE", header("content-type"))
            .env("CONTENT_LENGTH", body.len().to_string())
            .env("REMOTE_ADDR", "127.0.0.1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(body).unwrap();
        let output = child.wait_with_output().unwrap().stdout;
        let end = output.windows(4).position(|window| window == b"\r\n\r\n").expect("a CGI answer has headers");
        let head = String::from_utf8_lossy(&output[..end]).into_owned();
        let mut status = 200;
        let mut answer = Vec::new();
        for line in head.lines() {
            let (name, value) = line.split_once(": ").unwrap();
            match name {
                "Status" => status = value[..3].parse().unwrap(),
                _ => answer.push((name.to_owned(), value.to_owned())),
            }
        }
        (status, answer, output[end + 4..].to_vec())
    }
}

fn content_type(post: bool) -> &'static str {
    if post { "application/x-git-upload-pack-result" } else { "application/x-git-upload-pack-advertisement" }
}

fn read_request(reader: &mut BufReader<&TcpStream>, connection: usize) -> Option<(Request, Headers, Vec<u8>)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let header = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let mut body = vec![0; header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    let authorization = header("authorization");
    Some((Request { method, path, authorization, connection }, headers, body))
}

fn write_head(mut stream: &TcpStream, status: u16, headers: &[(&str, &str)], length: usize) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all((head + "\r\n").as_bytes())
}

fn respond(mut stream: &TcpStream, status: u16, headers: &[(&str, &str)], body: &[u8]) -> std::io::Result<()> {
    write_head(stream, status, headers, body.len())?;
    stream.write_all(body)
}
