//! The client of chat servers against a server that this test runs and scripts.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use togi_data::Message;
use togi_reward::{ChatAnswer, ChatRequest, Server, ServerConfig, ServerError, Unscorable};

/// What the server does with a request.
enum Act {
    /// Sends a status, further headers and a body.
    Send(u16, &'static str, String),
    /// The same, later.
    Later(Duration, Box<Act>),
    /// Sends nothing and closes after this time.
    Hang(Duration),
    /// Sends headers, then a byte of the body each 20 ms for 3 s.
    Drip,
    /// Sends headers and half of the body, then closes.
    Cut(String),
}

/// A request as it came.
#[derive(Clone)]
struct Came {
    at: Instant,
    path: String,
    authorization: Option<String>,
    body: Value,
}

struct Chat {
    url: String,
    came: Arc<Mutex<Vec<Came>>>,
    most_at_once: Arc<AtomicUsize>,
}

impl Chat {
    /// Serves what `script` says for the last message of a request and how often it came before.
    fn start(script: impl Fn(&str, usize) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let chat = Self {
            url: format!("http://{}/v1", listener.local_addr().unwrap()),
            came: Arc::default(),
            most_at_once: Arc::default(),
        };
        let (came, most) = (chat.came.clone(), chat.most_at_once.clone());
        let (script, now) = (Arc::new(script), Arc::new(AtomicUsize::new(0)));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, came, most, now) =
                    (script.clone(), came.clone(), most.clone(), now.clone());
                thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    while let Some(request) = read(&mut reader) {
                        let at_once = now.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(at_once, Ordering::SeqCst);
                        let text = said(&request.body);
                        let before = {
                            let mut all = came.lock().unwrap();
                            let same = all.iter().filter(|r| said(&r.body) == text);
                            let before = same.count();
                            all.push(request);
                            before
                        };
                        let act = script(&text, before);
                        let goes_on = act.perform(&stream, &now);
                        if !goes_on {
                            let _ = stream.shutdown(Shutdown::Both);
                            return;
                        }
                    }
                });
            }
        });
        chat
    }

    fn came(&self) -> Vec<Came> {
        self.came.lock().unwrap().clone()
    }

    /// A configuration that waits little.
    fn config(&self) -> ServerConfig {
        ServerConfig {
            url: self.url.clone(),
            model: "tiny".to_owned(),
            timeout_s: 5.0,
            retries: 2,
            backoff_s: 0.01,
            ..ServerConfig::default()
        }
    }

    fn server(&self) -> Server {
        Server::new(self.config()).unwrap()
    }

    fn cached(&self, path: &Path) -> Result<Server, ServerError> {
        let cache = Some(path.to_owned());
        Server::new(ServerConfig {
            cache,
            ..self.config()
        })
    }
}

impl Act {
    /// False if the connection is to be closed. `now` counts requests that have no reply yet.
    fn perform(self, mut stream: &TcpStream, now: &AtomicUsize) -> bool {
        let act = match self {
            Self::Later(wait, act) => {
                thread::sleep(wait);
                *act
            }
            act => act,
        };
        now.fetch_sub(1, Ordering::SeqCst);
        match act {
            Self::Send(status, headers, body) => {
                let head = format!(
                    "HTTP/1.1 {status} Status\r\n{headers}Content-Length: {}\r\n\r\n",
                    body.len()
                );
                stream.write_all((head + &body).as_bytes()).is_ok()
            }
            Self::Later(..) => unreachable!("one delay is enough"),
            Self::Hang(wait) => {
                thread::sleep(wait);
                false
            }
            Self::Drip => {
                let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
                let _ = stream.write_all(head.as_bytes());
                for _ in 0..150 {
                    if stream.write_all(b" ").is_err() {
                        break;
                    }
                    thread::sleep(Duration::from_millis(20));
                }
                false
            }
            Self::Cut(body) => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                let half = &body[..body.len() / 2];
                let _ = stream.write_all((head + half).as_bytes());
                false
            }
        }
    }
}

fn read(reader: &mut impl BufRead) -> Option<Came> {
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return None;
    }
    let at = Instant::now();
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(": ") else {
            break;
        };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some(Came {
        at,
        path,
        authorization: headers.remove("authorization"),
        body: serde_json::from_slice(&body).unwrap(),
    })
}

/// The last message of a request.
fn said(body: &Value) -> String {
    let messages = body["messages"].as_array().unwrap();
    messages.last().unwrap()["content"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn request(text: &str) -> ChatRequest {
    ChatRequest {
        messages: vec![Message::new("user", text)],
        max_tokens: 8,
        temperature: 0.0,
        seed: None,
        top_logprobs: 0,
        stop: Vec::new(),
    }
}

fn requests(n: usize) -> Vec<ChatRequest> {
    (0..n).map(|i| request(&format!("question {i}"))).collect()
}

/// A completion that says this, of 10 tokens in and 3 out.
fn completion(text: &str) -> Act {
    let body = json!({
        "id": "x", "object": "chat.completion", "model": "tiny",
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop",
            "logprobs": null,
        }],
        "usage": {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13},
    });
    Act::Send(200, "", body.to_string())
}

fn echo(text: &str) -> Act {
    completion(&format!("to {text}"))
}

fn error(status: u16, message: &str) -> Act {
    let body = json!({"error": {"message": message, "type": "x"}});
    Act::Send(status, "", body.to_string())
}

type Answers = Vec<Result<ChatAnswer, Unscorable>>;

fn one(server: &Server, text: &str) -> Result<ChatAnswer, Unscorable> {
    let mut answers = server.ask(&[request(text)]);
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}

/// Why there is no answer; the reason has these texts.
fn why(result: Result<ChatAnswer, Unscorable>, needles: &[&str]) -> String {
    let text = result.unwrap_err().to_string();
    for needle in needles {
        assert!(text.contains(needle), "`{needle}` is not in: {text}");
    }
    assert!(!text.contains('\n'), "{text}");
    text
}

/// The texts of answers that all came.
fn texts(answers: &Answers) -> Vec<&str> {
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    answers.iter().flatten().map(|a| a.text.as_str()).collect()
}

#[test]
fn a_plain_answer() {
    let chat = Chat::start(|text, _| echo(text));
    let config = ServerConfig {
        url: format!("{}/", chat.url),
        ..chat.config()
    };
    let server = Server::new(config).unwrap();
    let answer = one(&server, "hello").unwrap();
    let expected = ChatAnswer {
        text: "to hello".to_owned(),
        finish_reason: Some("stop".to_owned()),
        first_token: Vec::new(),
        tokens_in: 10,
        tokens_out: 3,
        cached: false,
    };
    assert_eq!(answer, expected);
    let came = &chat.came()[0];
    assert_eq!(came.path, "/v1/chat/completions");
    assert_eq!(came.authorization, None);
    // What was not asked for is not sent: not every server knows it.
    let plain = json!({
        "model": "tiny",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 8,
        "temperature": 0.0,
    });
    assert_eq!(came.body, plain);
    let full = ChatRequest {
        seed: Some(7),
        top_logprobs: 5,
        stop: vec!["\n".to_owned()],
        ..request("more")
    };
    assert!(server.ask(&[full])[0].is_ok());
    let body = &chat.came()[1].body;
    assert_eq!(body["seed"], 7);
    assert_eq!(body["logprobs"], true);
    assert_eq!(body["top_logprobs"], 5);
    assert_eq!(body["stop"], json!(["\n"]));
    assert!(server.ask(&[]).is_empty());
}

#[test]
fn answers_are_in_order_and_so_many_at_a_time() {
    let chat = Chat::start(|text, _| {
        let wait = text.bytes().map(u64::from).sum::<u64>() * 7919 % 60;
        Act::Later(Duration::from_millis(wait), Box::new(echo(text)))
    });
    let config = ServerConfig {
        concurrency: 4,
        ..chat.config()
    };
    let server = Server::new(config).unwrap();
    let answers = server.ask(&requests(24));
    let expected: Vec<String> = (0..24).map(|i| format!("to question {i}")).collect();
    assert_eq!(texts(&answers), expected);
    let most = chat.most_at_once.load(Ordering::SeqCst);
    assert!((2..=4).contains(&most), "{most} at once");
}

#[test]
fn retry_after_is_honoured() {
    let chat = Chat::start(|text, before| match (text, before) {
        ("busy", 0) => Act::Send(429, "Retry-After: 1\r\n", "{}".to_owned()),
        ("dated", 0) => Act::Send(
            503,
            "Retry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
            "{}".to_owned(),
        ),
        ("tomorrow", _) => Act::Send(429, "Retry-After: 86400\r\n", "full".to_owned()),
        _ => echo(text),
    });
    let server = chat.server();
    assert_eq!(one(&server, "busy").unwrap().text, "to busy");
    let came = chat.came();
    let gap = came[1].at - came[0].at;
    assert!(gap >= Duration::from_secs(1), "{gap:?}");
    assert!(gap < Duration::from_secs(3), "{gap:?}");
    let usage = server.usage();
    assert_eq!((usage.requests, usage.retries, usage.failed), (2, 1, 0));
    // A date that has passed asks for no wait.
    assert_eq!(one(&server, "dated").unwrap().text, "to dated");
    why(
        one(&server, "tomorrow"),
        &["429", "full", "asks to wait 86400 s"],
    );
    assert_eq!(chat.came().len(), 5);
}

#[test]
fn all_wait_while_the_server_asks_to_wait() {
    let chat = Chat::start(|text, _| match text {
        "busy" => Act::Send(429, "Retry-After: 0.5\r\n", "{}".to_owned()),
        _ => echo(text),
    });
    let config = ServerConfig {
        retries: 0,
        ..chat.config()
    };
    let server = Server::new(config).unwrap();
    why(one(&server, "busy"), &["429"]);
    assert!(server.ask(&requests(3)).iter().all(Result::is_ok));
    let came = chat.came();
    let late = |r: &Came| r.at - came[0].at >= Duration::from_millis(500);
    assert!(came.len() == 4 && came[1..].iter().all(late));
}

#[test]
fn what_passes_is_sent_again() {
    let chat = Chat::start(|text, before| match (text, before) {
        ("500", 0 | 1) => error(500, "oops"),
        ("408", 0) => error(408, "slow"),
        ("409", 0) => error(409, "conflict"),
        ("cut", 0) => Act::Cut("x".repeat(500)),
        ("closed", 0) => Act::Hang(Duration::ZERO),
        ("malformed", 0) => Act::Send(200, "", "{\"choices\": [".to_owned()),
        _ => echo(text),
    });
    let server = chat.server();
    for (text, sent) in [
        ("500", 3),
        ("408", 2),
        ("409", 2),
        ("cut", 2),
        ("closed", 2),
        ("malformed", 2),
    ] {
        let before = chat.came().len();
        assert_eq!(one(&server, text).unwrap().text, format!("to {text}"));
        assert_eq!(chat.came().len() - before, sent, "{text}");
    }
    let usage = server.usage();
    assert_eq!((usage.requests, usage.retries, usage.failed), (13, 7, 0));
}

#[test]
fn one_failure_leaves_the_others_alone() {
    let chat = Chat::start(|text, _| match text {
        "question 2" => error(500, "the GPU\n  is gone"),
        _ => echo(text),
    });
    let server = chat.server();
    let mut answers = server.ask(&requests(6));
    let failed = answers.remove(2);
    why(
        failed,
        &[&chat.url, "500", "the GPU   is gone", "sent 3 times"],
    );
    let expected: Vec<String> = [0, 1, 3, 4, 5].map(|i| format!("to question {i}")).into();
    assert_eq!(texts(&answers), expected);
    let usage = server.usage();
    assert_eq!((usage.requests, usage.retries, usage.failed), (8, 2, 1));
}

/// A variable that Cargo sets for every test: setting one here would be unsafe.
const KEY_ENV: &str = "CARGO_PKG_NAME";
const KEY: &str = env!("CARGO_PKG_NAME");

#[test]
fn what_lasts_is_not_sent_again_and_the_key_is_not_shown() {
    let chat = Chat::start(|text, _| match text {
        "400" => error(400, "top_logprobs is too large"),
        "401" => error(401, &format!("Incorrect key: {KEY}. Get another.")),
        "404" => Act::Send(404, "", json!({"detail": "Not Found"}).to_string()),
        "302" => Act::Send(302, "Location: /elsewhere\r\n", String::new()),
        "garbage" => Act::Send(200, "", format!("<html>{KEY}</html>")),
        _ => echo(text),
    });
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("answers.jsonl");
    let config = ServerConfig {
        key_env: KEY_ENV.to_owned(),
        cache: Some(cache.clone()),
        ..chat.config()
    };
    let server = Server::new(config).unwrap();
    for (text, needle) in [
        ("400", "top_logprobs is too large"),
        ("401", "Incorrect key: [key]. Get another."),
        ("404", "Not Found"),
        ("302", "nothing"),
    ] {
        let before = chat.came().len();
        let reason = why(one(&server, text), &[&format!("status {text}"), needle]);
        assert!(!reason.contains(KEY), "{reason}");
        assert_eq!(chat.came().len() - before, 1, "{text}");
    }
    let reason = why(one(&server, "garbage"), &["<html>[key]</html>"]);
    assert!(!reason.contains(KEY), "{reason}");
    one(&server, "well").unwrap();
    let expected = format!("Bearer {KEY}");
    for came in chat.came() {
        assert_eq!(came.authorization.as_deref(), Some(expected.as_str()));
    }
    let shown = format!("{server:?}");
    assert!(!shown.contains(KEY), "{shown}");
    assert!(shown.contains("answers.jsonl"), "{shown}");
    let kept = fs::read_to_string(&cache).unwrap();
    assert!(!kept.is_empty() && !kept.contains(KEY), "{kept}");
}

#[test]
fn a_reply_without_an_answer_says_what_came() {
    let chat = Chat::start(|text, _| {
        let choice = |content: Value| json!({"choices": [{"message": {"content": content}}]});
        let body = match text {
            "malformed" => format!("<html>{}", "long ".repeat(1000)),
            "missing" => json!({"error": {"message": "no credit"}}).to_string(),
            "none" => json!({"choices": [], "usage": {"prompt_tokens": 5}}).to_string(),
            "null" => choice(Value::Null).to_string(),
            "blank" => choice(" \n".into()).to_string(),
            "message" => json!({"choices": [{}]}).to_string(),
            "type" => json!({"choices": "x"}).to_string(),
            "large" => " ".repeat((16 << 20) + 1),
            _ => String::new(),
        };
        Act::Send(200, "", body)
    });
    let config = ServerConfig {
        price_in: 1e6,
        ..chat.config()
    };
    let server = Server::new(config).unwrap();
    let reason = why(
        one(&server, "malformed"),
        &["no chat completion", "<html>long", "sent 3 times"],
    );
    assert!(reason.chars().count() < 500, "{reason}");
    why(one(&server, "missing"), &["no choices", "no credit"]);
    why(one(&server, "none"), &["no choices", "\"choices\":[]"]);
    why(one(&server, "null"), &["no content", "\"content\":null"]);
    why(one(&server, "blank"), &["blank content"]);
    why(one(&server, "message"), &["no content"]);
    why(one(&server, "type"), &["no chat completion"]);
    why(one(&server, "empty"), &["no chat completion", "nothing"]);
    // A reply that cannot be used was paid for: three times five tokens.
    assert_eq!(server.usage().cost, 15.0);
    let before = chat.came().len();
    why(one(&server, "large"), &["larger", "16777216"]);
    assert_eq!(chat.came().len() - before, 1);
    let hot = ChatRequest {
        temperature: f64::NAN,
        ..request("hot")
    };
    why(server.ask(&[hot]).remove(0), &["temperature is NaN"]);
}

#[test]
fn a_slow_server_is_given_up() {
    let chat = Chat::start(|text, _| match text {
        "hang" => Act::Hang(Duration::from_secs(3)),
        "drip" => Act::Drip,
        _ => echo(text),
    });
    let config = ServerConfig {
        timeout_s: 0.3,
        retries: 1,
        ..chat.config()
    };
    let server = Server::new(config).unwrap();
    for text in ["hang", "drip"] {
        let start = Instant::now();
        why(one(&server, text), &["within 0.3 s", "sent 2 times"]);
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(590), "{text}: {took:?}");
        assert!(took < Duration::from_millis(2500), "{text}: {took:?}");
    }
    assert_eq!(one(&server, "well").unwrap().text, "to well");
}

#[test]
fn connections_that_break() {
    let chat = Chat::start(|text, _| match text {
        "cut" => Act::Cut("x".repeat(500)),
        _ => Act::Hang(Duration::ZERO),
    });
    let server = chat.server();
    why(one(&server, "cut"), &["disconnected", "sent 3 times"]);
    why(one(&server, "closed"), &["sent 3 times"]);
    // A port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", free.local_addr().unwrap());
    drop(free);
    let config = ServerConfig {
        url: url.clone(),
        ..chat.config()
    };
    let nobody = Server::new(config).unwrap();
    why(one(&nobody, "x"), &[&url, "refused", "sent 3 times"]);
    assert_eq!(nobody.usage().requests, 3);
}

/// `A` at 0.9, `B` at 0.1, and one that `serde_json` reads as another number each time that it is
/// written and read.
fn with_logprobs() -> Act {
    let top = json!([
        {"token": "A", "logprob": 0.9_f64.ln(), "bytes": [65]},
        {"token": "B", "logprob": 0.1_f64.ln(), "bytes": [66]},
        {"token": "C", "logprob": -1.428_568_744_044_192_3e-7, "bytes": null},
    ]);
    let body = json!({
        "choices": [{
            "message": {"role": "assistant", "content": "A."},
            "finish_reason": "length",
            "logprobs": {"content": [
                {"token": "A", "logprob": 0.9_f64.ln(), "bytes": [65], "top_logprobs": top},
                {"token": ".", "logprob": -0.5, "top_logprobs": [
                    {"token": ".", "logprob": -0.5},
                ]},
            ]},
        }],
    });
    Act::Send(200, "", body.to_string())
}

#[test]
fn log_probabilities_of_the_first_token() {
    let chat = Chat::start(|_, _| with_logprobs());
    let answer = one(&chat.server(), "x").unwrap();
    assert_eq!(answer.finish_reason.as_deref(), Some("length"));
    let names: Vec<&str> = answer.first_token.iter().map(|t| t.0.as_str()).collect();
    assert_eq!(names, ["A", "B", "C"]);
    let near = |i: usize, x: f64| (answer.first_token[i].1 - x).abs() < 1e-12;
    assert!(near(0, 0.9_f64.ln()) && near(1, 0.1_f64.ln()) && near(2, -1.428_568_744e-7));
    assert_eq!((answer.tokens_in, answer.tokens_out), (0, 0));
}

#[test]
fn equal_requests_are_sent_once() {
    let chat = Chat::start(|text, _| match text {
        "bad" => error(400, "no"),
        _ => echo(text),
    });
    let server = chat.server();
    let texts = ["a", "b", "a", "bad", "a", "bad"].map(request);
    let answers = server.ask(&texts);
    let cached: Vec<_> = answers
        .iter()
        .map(|a| a.as_ref().map(|a| a.cached))
        .collect();
    assert_eq!(cached[..3], [Ok(false), Ok(false), Ok(true)]);
    assert_eq!(cached[4], Ok(true));
    assert!(cached[3].is_err() && cached[3] == cached[5]);
    assert_eq!(chat.came().len(), 3);
    // Another seed is another request.
    let seeds = [1, 2].map(|seed| ChatRequest {
        seed: Some(seed),
        ..request("a")
    });
    assert!(server.ask(&seeds).iter().flatten().all(|a| !a.cached));
    let usage = server.usage();
    assert_eq!((usage.requests, usage.cached, usage.failed), (5, 2, 2));
}

#[test]
fn a_second_run_asks_only_for_what_is_missing() {
    let chat = Chat::start(|text, _| match text {
        "question 0" => with_logprobs(),
        _ => echo(text),
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/answers.jsonl");
    let asked = requests(4);
    let bare = |answers: Answers| -> Vec<ChatAnswer> {
        let plain = |a: Result<ChatAnswer, Unscorable>| ChatAnswer {
            cached: false,
            ..a.unwrap()
        };
        answers.into_iter().map(plain).collect()
    };
    let first = bare(chat.cached(&path).unwrap().ask(&asked));
    assert_eq!(chat.came().len(), 4);

    let server = chat.cached(&path).unwrap();
    let again = server.ask(&asked);
    assert!(again.iter().flatten().all(|a| a.cached));
    assert_eq!(bare(again), first);
    assert_eq!(chat.came().len(), 4);
    let usage = server.usage();
    assert_eq!((usage.requests, usage.cached), (0, 4));
    assert_eq!((usage.tokens_in, usage.tokens_out), (0, 0));
    drop(server);

    // Killed while it wrote its last line.
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 20]).unwrap();
    let server = chat.cached(&path).unwrap();
    assert_eq!(bare(server.ask(&asked)), first);
    assert_eq!(server.usage().requests, 1);
    assert_eq!(fs::read(&path).unwrap(), whole);
    drop(server);
    let long = format!("{{\"key\":\"{}", "x".repeat(5000));
    fs::write(&path, [&whole, long.as_bytes()].concat()).unwrap();
    drop(chat.cached(&path).unwrap());
    assert_eq!(fs::read(&path).unwrap(), whole);

    // Another model's answers are others.
    let other = ServerConfig {
        model: "other".to_owned(),
        cache: Some(path.clone()),
        ..chat.config()
    };
    let server = Server::new(other).unwrap();
    assert!(!server.ask(&asked[..1])[0].as_ref().unwrap().cached);
    drop(server);

    let text = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines[1] = &lines[1][..30];
    let damaged = lines.join("\n") + "\n";
    fs::write(&path, &damaged).unwrap();
    let message = chat.cached(&path).unwrap_err().to_string();
    assert!(message.contains("answers.jsonl:2:"), "{message}");
    assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
}

#[test]
fn two_servers_share_a_cache() {
    let chat = Chat::start(|text, _| echo(text));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("answers.jsonl");
    let (a, b) = (chat.cached(&path).unwrap(), chat.cached(&path).unwrap());
    thread::scope(|scope| {
        scope.spawn(|| assert!(a.ask(&requests(8)).iter().all(Result::is_ok)));
        scope.spawn(|| assert!(b.ask(&requests(12)).iter().all(Result::is_ok)));
    });
    // A third run was killed: its torn line is not in the way of those that live.
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"{\"key\":\"to").unwrap();
    assert!(one(&a, "after").is_ok());
    let before = chat.came().len();
    let mut all = requests(12);
    all.push(request("after"));
    let answers = chat.cached(&path).unwrap().ask(&all);
    assert!(answers.iter().flatten().filter(|x| x.cached).count() == 13);
    assert_eq!(chat.came().len(), before);
}

#[test]
fn requests_a_minute_are_limited_whatever_the_concurrency() {
    let chat = Chat::start(|text, before| match (text, before) {
        ("question 1", 0) => error(503, "busy"),
        _ => echo(text),
    });
    let config = ServerConfig {
        requests_per_minute: 600,
        concurrency: 8,
        ..chat.config()
    };
    let server = Server::new(config).unwrap();
    let start = Instant::now();
    assert!(server.ask(&requests(8)).iter().all(Result::is_ok));
    let came = chat.came();
    assert_eq!(came.len(), 9);
    // Eight gaps of 100 ms: what is sent again waits its turn too.
    let took = came.iter().map(|r| r.at).max().unwrap() - start;
    assert!(took >= Duration::from_millis(800), "{took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(server.usage().retries, 1);
}

#[test]
fn cost_is_counted() {
    let chat = Chat::start(|text, _| echo(text));
    let config = ServerConfig {
        price_in: 2.0,
        price_out: 10.0,
        ..chat.config()
    };
    let server = Server::new(config).unwrap();
    assert!(server.ask(&requests(5)).iter().all(Result::is_ok));
    let usage = server.usage();
    assert_eq!((usage.tokens_in, usage.tokens_out), (50, 15));
    assert!((usage.cost - 250e-6).abs() < 1e-12, "{}", usage.cost);
}

#[test]
fn configurations_that_cannot_be() {
    let good = r#"{"url": "http://localhost:1/v1", "model": "m"}"#;
    let config: ServerConfig = serde_json::from_str(good).unwrap();
    assert_eq!((config.retries, config.concurrency), (4, 8));
    assert!(serde_json::from_str::<ServerConfig>(r#"{"modell": "m"}"#).is_err());
    Server::new(config.clone()).unwrap();
    let check = |change: &dyn Fn(&mut ServerConfig), needle: &str| {
        let mut changed = config.clone();
        change(&mut changed);
        let text = Server::new(changed).unwrap_err().to_string();
        assert!(text.contains(needle), "`{needle}` is not in: {text}");
    };
    for url in [
        "",
        "localhost:8000",
        "ftp://x/v1",
        "http://a:b@x/v1",
        "http://x/v1?k=1",
        "http://x/v1#k",
    ] {
        check(&|c| c.url = url.to_owned(), "`url`");
    }
    check(&|c| c.model.clear(), "`model`");
    check(&|c| c.timeout_s = 0.0, "`timeout_s`");
    check(&|c| c.timeout_s = f64::NAN, "`timeout_s`");
    check(&|c| c.backoff_s = -1.0, "`backoff_s`");
    check(&|c| c.concurrency = 0, "`concurrency`");
    check(&|c| c.price_in = -1.0, "`price_in`");
    let unset = "TOGI_NO_SUCH_KEY";
    check(&|c| c.key_env = unset.to_owned(), unset);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    check(&|c| c.cache = Some(path.clone()), path.to_str().unwrap());
}
