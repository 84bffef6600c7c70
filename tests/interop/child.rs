//! A process of Node.js that does what it is told, one JSON object per line in each direction.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
    task::{Context, Poll},
    thread,
};

use futures::{StreamExt, channel::mpsc};
use serde_json::{Value, json};

use crate::{
    skip::skipped,
    swarm::{Drive, get},
};

pub struct Js {
    child: Child,
    stdin: ChildStdin,
    lines: mpsc::UnboundedReceiver<Value>,
    answers: HashMap<u64, Result<Value, String>>,
    /// What it said without being asked, since it was started.
    pub events: Vec<Value>,
    complaints: Arc<Mutex<String>>,
    asked: u64,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop")
}

/// Whether Node.js and the packages are there; a message says so if not.
fn can_run(package: &str) -> bool {
    let tool = format!("js-{package}");
    let version = Command::new("node").arg("--version").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let major = version.ok().and_then(|version| {
        let (major, _) = version.strip_prefix('v')?.split_once('.')?;
        major.parse::<u32>().ok()
    });
    if major.is_none_or(|major| major < 20) {
        skipped(
            &tool,
            "Node.js 20 or later is not installed (`apt-get install nodejs npm`)",
        );
        return false;
    }
    // npm writes this file last.
    let installed = folder()
        .join(package)
        .join("node_modules/.package-lock.json");
    if !installed.is_file() {
        let why =
            format!("the packages are not installed (`npm ci --prefix tests/interop/{package}`)");
        skipped(&tool, &why);
        return false;
    }
    true
}

impl Js {
    /// A node of js-libp2p 3 that listens on the loopback interface, with a key of this type (`Ed25519`, `secp256k1`,
    /// `RSA`); `None` when that is not installed, which a message says.
    pub async fn node(key_type: &str) -> Option<Self> {
        let args = ["--import", "./polyfill.mjs", "node.mjs", key_type];
        Self::start("wire", &args).await
    }

    /// The peer store of js-libp2p 0.30.13 on a folder.
    pub async fn store(folder: &Path) -> Option<Self> {
        let mut js = Self::start("stored", &["store.js"]).await?;
        js.call("open", json!({ "folder": folder })).await;
        Some(js)
    }

    async fn start(package: &str, args: &[&str]) -> Option<Self> {
        if !can_run(package) {
            return None;
        }
        let mut child = Command::new("node")
            .args(args)
            .current_dir(folder().join(package))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (send, lines) = mpsc::unbounded();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = send.unbounded_send(serde_json::from_str(&line).unwrap());
            }
        });
        let complaints = Arc::new(Mutex::new(String::new()));
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let heard = complaints.clone();
        thread::spawn(move || {
            let mut line = String::new();
            while matches!(stderr.by_ref().take(4_096).read_line(&mut line), Ok(1..)) {
                heard.lock().unwrap().push_str(&std::mem::take(&mut line));
            }
        });
        let mut js = Self {
            stdin: child.stdin.take().unwrap(),
            child,
            lines,
            answers: HashMap::new(),
            events: Vec::new(),
            complaints,
            asked: 0,
        };
        get(&mut js, |js| js.event("ready").next().cloned()).await;
        Some(js)
    }

    /// Asks for something; the number of the question is for [`Js::answer`].
    pub fn ask(&mut self, call: &str, mut args: Value) -> u64 {
        self.asked += 1;
        args["id"] = self.asked.into();
        args["call"] = call.into();
        writeln!(self.stdin, "{args}").unwrap();
        self.asked
    }

    /// The answer to a question, once it is there.
    #[track_caller]
    pub fn answer(&mut self, question: u64) -> Option<Value> {
        self.try_answer(question).map(Result::unwrap)
    }

    /// As [`Js::answer`], for a question that fails.
    pub fn try_answer(&mut self, question: u64) -> Option<Result<Value, String>> {
        self.answers.remove(&question)
    }

    /// Asks, and waits for the answer.
    #[track_caller]
    pub fn call(&mut self, call: &str, args: Value) -> impl Future<Output = Value> {
        let question = self.ask(call, args);
        get(self, move |js| js.answer(question))
    }

    /// What it said of this kind without being asked.
    pub fn event(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.events
            .iter()
            .filter(move |event| event["event"] == kind)
    }
}

impl Drive for &mut Js {
    fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        match self.lines.poll_next_unpin(cx) {
            Poll::Pending => false,
            Poll::Ready(None) => {
                let complaints = self.complaints.lock().unwrap();
                panic!("the js process has ended: {complaints}");
            }
            Poll::Ready(Some(mut line)) => {
                match (line["id"].as_u64(), line.get("error")) {
                    (Some(id), Some(error)) => {
                        let error = error.as_str().unwrap().to_owned();
                        self.answers.insert(id, Err(error));
                    }
                    (Some(id), None) => {
                        self.answers.insert(id, Ok(line["ok"].take()));
                    }
                    (None, _) => self.events.push(line),
                }
                true
            }
        }
    }
}

impl Drop for Js {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
