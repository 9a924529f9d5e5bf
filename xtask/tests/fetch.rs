//! `fetch` and `hf:` against a hub that this test serves.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Output},
    sync::Arc,
    thread,
};

use sha2::{Digest, Sha256};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the hub serves: files by name, and the checksum that it gives for each.
type Files = BTreeMap<String, (Vec<u8>, String)>;

fn fixture_files() -> Files {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/policy/tests/fixtures/llama");
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            let digest = Sha256::digest(&bytes);
            let sum = digest.iter().map(|b| format!("{b:02x}")).collect();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, (bytes, sum))
        })
        .collect()
}

/// Serves `tiny/llama`, to those who have the token, and returns its address.
fn hub(files: Files) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let files = Arc::new(files);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let files = files.clone();
            thread::spawn(move || answer(stream, &files));
        }
    });
    address
}

fn answer(mut stream: TcpStream, files: &Files) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request).unwrap_or(0) == 0 {
            return;
        }
        let (mut from, mut to, mut allowed) = (0, None, false);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
                break;
            }
            let line = line.trim().to_lowercase();
            allowed |= line == "authorization: bearer secret";
            if let Some(range) = line.strip_prefix("range: bytes=") {
                let (a, b) = range.split_once('-').unwrap();
                (from, to) = (a.parse().unwrap(), b.parse::<usize>().ok());
            }
        }
        let path = request.split(' ').nth(1).unwrap_or("").to_owned();
        let resolve = format!("/tiny/llama/resolve/{}/", "main");
        let (status, headers, body) = if !allowed {
            ("401 Unauthorized", String::new(), Vec::new())
        } else if path.starts_with("/api/models/tiny/llama/revision/main") {
            let siblings: Vec<_> = files
                .keys()
                .map(|name| serde_json::json!({"rfilename": name}))
                .collect();
            let info = serde_json::json!({"siblings": siblings, "sha": COMMIT});
            ("200 OK", String::new(), info.to_string().into_bytes())
        } else if let Some((bytes, sum)) = path.strip_prefix(&resolve).and_then(|f| files.get(f)) {
            let end = to.map_or(bytes.len(), |to| (to + 1).min(bytes.len()));
            let headers = format!(
                "ETag: \"{sum}\"\r\nx-repo-commit: {COMMIT}\r\nContent-Range: bytes {from}-{}/{}\r\n",
                end - 1,
                bytes.len()
            );
            ("206 Partial Content", headers, bytes[from..end].to_vec())
        } else {
            ("404 Not Found", String::new(), Vec::new())
        };
        let head = format!(
            "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        );
        if stream.write_all(head.as_bytes()).is_err() || stream.write_all(&body).is_err() {
            return;
        }
    }
}

fn run(arguments: &[&str], home: &Path, endpoint: &str, more: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command
        .args(arguments)
        .env("HF_HOME", home)
        .env("HF_ENDPOINT", endpoint);
    for name in ["HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE"] {
        command.env_remove(name);
    }
    command.envs(more.iter().copied()).output().unwrap()
}

fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!text.contains("panicked"), "{text}");
    text
}

const TOKEN: (&str, &str) = ("HF_TOKEN", "secret");
const GENERATE: [&str; 9] = [
    "generate",
    "--model",
    "hf:tiny/llama",
    "--raw",
    "--prompt",
    "w5 w6",
    "--temperature=0",
    "--max-new-tokens",
    "4",
];

#[test]
fn a_model_comes_from_the_hub_and_then_from_the_cache() {
    let home = tempfile::tempdir().unwrap();
    let hub = hub(fixture_files());
    let first = run(&GENERATE, home.path(), &hub, &[TOKEN]);
    assert!(first.status.success(), "{}", said(&first));
    // The layout that Python's huggingface_hub shares.
    let snapshot = home
        .path()
        .join("hub/models--tiny--llama/snapshots")
        .join(COMMIT);
    assert!(snapshot.join("model.safetensors").is_file());
    let gone = "http://127.0.0.1:1";
    for more in [&[][..], &[("HF_HUB_OFFLINE", "1")]] {
        let again = run(&GENERATE, home.path(), gone, more);
        assert!(again.status.success(), "{}", said(&again));
        assert_eq!(again.stdout, first.stdout);
    }
    let fetched = run(&["fetch", "hf:tiny/llama"], home.path(), &hub, &[TOKEN]);
    let text = String::from_utf8_lossy(&fetched.stdout).into_owned();
    assert!(text.contains(snapshot.to_str().unwrap()), "{text}");
}

#[test]
fn what_the_hub_does_not_give_is_said() {
    let home = tempfile::tempdir().unwrap();
    let hub_address = hub(fixture_files());
    let refused = |repo: &str, endpoint: &str, more: &[(&str, &str)], status: i32, needle: &str| {
        let output = run(&["fetch", repo], home.path(), endpoint, more);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(status), "{repo}: {text}");
        assert!(
            text.contains(needle),
            "{repo}: `{needle}` is not in: {text}"
        );
    };
    refused("hf:tiny/llama", &hub_address, &[], 1, "HF_TOKEN");
    refused(
        "hf:tiny/other",
        &hub_address,
        &[TOKEN],
        1,
        "no such repository",
    );
    refused(
        "hf:tiny/llama@v9",
        &hub_address,
        &[TOKEN],
        1,
        "no such repository",
    );
    refused(
        "hf:tiny/llama",
        "http://127.0.0.1:1",
        &[],
        1,
        "does not answer",
    );
    refused("hf:tiny/llama", "nowhere", &[], 2, "HF_ENDPOINT");
    let offline = ("HF_HUB_OFFLINE", "1");
    refused(
        "hf:tiny/llama",
        &hub_address,
        &[TOKEN, offline],
        1,
        "HF_HUB_OFFLINE",
    );
    refused("hf:llama", &hub_address, &[TOKEN], 2, "owner/name");
    refused("llama", &hub_address, &[TOKEN], 2, "smollm2-135m-instruct");
}

#[test]
fn a_file_with_another_checksum_is_not_kept() {
    let home = tempfile::tempdir().unwrap();
    let mut files = fixture_files();
    let weights = files.get_mut("model.safetensors").unwrap();
    let middle = weights.0.len() / 2;
    weights.0[middle] ^= 1;
    let hub_address = hub(files);
    let output = run(
        &["fetch", "hf:tiny/llama"],
        home.path(),
        &hub_address,
        &[TOKEN],
    );
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("model.safetensors") && text.contains("checksum"),
        "{text}"
    );
    let pickle = Files::from([
        ("config.json".to_owned(), (b"{}".to_vec(), "1".to_owned())),
        (
            "pytorch_model.bin".to_owned(),
            (b"x".to_vec(), "2".to_owned()),
        ),
    ]);
    let hub_address = hub(pickle);
    let output = run(
        &["fetch", "hf:tiny/llama"],
        home.path(),
        &hub_address,
        &[TOKEN],
    );
    let text = said(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("safetensors only"), "{text}");
}
