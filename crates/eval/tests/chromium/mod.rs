//! Pages in headless Chromium.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

const RUN: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=4000",
    "--timeout=60000",
];

/// The browser, or a word that the test is skipped.
pub(crate) fn browser() -> Option<String> {
    let program = std::env::var("TOGI_CHROMIUM").unwrap_or_else(|_| "chromium".to_owned());
    let found = Command::new(&program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match found {
        Ok(status) if status.success() => return Some(program),
        _ => {
            let _ = writeln!(std::io::stderr(), "skipped: `{program}` does not run");
        }
    }
    let required = std::env::var_os("TOGI_REQUIRE_CHROMIUM").is_some();
    assert!(!required, "`{program}` is required and does not run");
    None
}

pub(crate) struct Pages {
    program: String,
    folder: TempDir,
}

impl Pages {
    pub(crate) fn new(program: String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { program, folder }
    }

    pub(crate) fn write(&self, name: &str, html: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, html).unwrap();
        path
    }

    /// The page after its scripts ran; `hash` follows its address.
    pub(crate) fn dom(&self, page: &Path, hash: &str, size: &str) -> String {
        let profile = tempfile::tempdir_in(self.folder.path()).unwrap();
        let output = Command::new(&self.program)
            .args(RUN)
            .arg("--allow-file-access-from-files")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("--window-size={size}"))
            .arg("--dump-dom")
            .arg(format!("file://{}{hash}", page.display()))
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What `script` leaves in `out`, run beside a frame of the page that is `width` wide:
    /// `view` is the frame's window, `data` what the page says of itself.
    pub(crate) fn beside(&self, page: &Path, hash: &str, width: u32, script: &str) -> String {
        let name = page.file_name().unwrap().to_string_lossy();
        let outer = format!(
            "<!doctype html><body><iframe width={width} height=800 style='border:0' src='{name}{hash}'>\
             </iframe><script>onload = () => {{ const view = document.querySelector('iframe').contentWindow;\
             const data = view.document.documentElement.dataset; let out = ''; {script}\
             document.documentElement.dataset.out = out; }};</script>"
        );
        let dom = self.dom(&self.write("outer.html", &outer), "", "1000,900");
        told(&dom, "out").unwrap_or_else(|| panic!("no answer: {dom}"))
    }
}

/// What the page's root element says under `data-NAME`.
pub(crate) fn told(dom: &str, name: &str) -> Option<String> {
    let root = &dom[dom.find("<html")?..];
    let root = &root[..root.find('>')?];
    let (_, rest) = root.split_once(&format!("data-{name}=\""))?;
    Some(rest[..rest.find('"')?].to_owned())
}
