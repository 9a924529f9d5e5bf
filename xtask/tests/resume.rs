//! Each recipe is killed at random moments and continued; what comes out is what an
//! uninterrupted run gives, byte by byte.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use togi_data::rng::CounterRng;

/// Interrupted runs of each recipe.
const ROUNDS: u64 = 3;
/// Kills of one run at most; then it may end.
const KILLS: u32 = 5;

const OFFLINE: &[&str] = &[
    "--max-steps=12",
    "--set=data.lab_rows=200",
    "--set=train.batch_size=8",
    "--set=train.checkpoint_every=2",
    "--set=train.eval_every=5",
    "--set=train.eval_samples=16",
];
const LORA: &[&str] = &["--set=lora.r=4", "--set=lora.dropout=0.1"];
const PPO: &[&str] = &[
    "--max-steps=6",
    "--set=prompts_per_step=8",
    "--set=minibatch_size=4",
    "--set=micro_batch_size=4",
    "--set=checkpoint_every=2",
    "--set=sampling.max_new_tokens=8",
];
const ONLINE: &[&str] = &[
    "--max-steps=6",
    "--set=prompts_per_step=2",
    "--set=completions_per_prompt=4",
    "--set=minibatch_size=4",
    "--set=micro_batch_size=2",
    "--set=eval_every=4",
    "--set=eval_samples=8",
    "--set=checkpoint_every=2",
    "--set=sampling.max_new_tokens=8",
];
const WHOLE_GROUPS: &str = "--set=micro_batch_size=4";
const RLHF: &[&str] = &[
    "--set=base.train.max_steps=6",
    "--set=base.train.checkpoint_every=2",
    "--set=sft.train.max_steps=4",
    "--set=sft.train.checkpoint_every=2",
    "--set=reward.train.max_steps=4",
    "--set=reward.train.checkpoint_every=2",
    "--set=ppo.max_steps=3",
    "--set=ppo.checkpoint_every=1",
    "--set=eval_prompts=16",
];

/// The lab's model before any training, as a folder: what a recipe does before it starts (base and SFT
/// stages on the lab) is what `rlhf` does.
fn lab_model() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("resume-lab-model");
        let _ = std::fs::remove_dir_all(&folder);
        let mut export = Command::new(env!("CARGO_BIN_EXE_xtask"));
        finish(export.args(["export", "lab", "--out"]).arg(&folder));
        folder
    })
}

fn command(recipe: &str, settings: &[&str], out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["train", recipe, "--out"]).arg(out);
    if recipe != "rlhf" {
        command.arg("--model").arg(lab_model()).arg("--compare=4");
    }
    command.args(settings).stdout(Stdio::null());
    command
}

fn finish(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

fn result(out: &Path) -> [Vec<u8>; 2] {
    let whole = "model/model.safetensors";
    let weights = if out.join(whole).exists() {
        whole
    } else {
        "model/adapter_model.safetensors"
    };
    ["metrics.jsonl", weights].map(|file| std::fs::read(out.join(file)).unwrap())
}

fn resumes_exactly(recipe: &str, settings: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    let started = Instant::now();
    finish(&mut command(recipe, settings, &whole));
    let duration = started.elapsed();
    let expected = result(&whole);
    let mut rng = CounterRng::new(1, &[recipe.len() as u64]);
    for round in 0..ROUNDS {
        let out = folder.path().join(format!("killed-{round}"));
        for _ in 0..KILLS {
            // `--resume` of a run that has not begun begins it.
            let mut running = command(recipe, settings, &out);
            let mut child = running
                .arg("--resume")
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let until = Instant::now() + duration.mul_f64(rng.next_f64());
            let mut ended = false;
            while !ended && Instant::now() < until {
                thread::sleep(Duration::from_millis(5));
                ended = child.try_wait().unwrap().is_some();
            }
            // On Unix this is SIGKILL.
            let _ = child.kill();
            child.wait().unwrap();
            if ended {
                break;
            }
        }
        finish(command(recipe, settings, &out).arg("--resume"));
        let [metrics, weights] = result(&out);
        assert!(
            metrics == expected[0],
            "{recipe}, round {round}: other metrics:\n{}",
            String::from_utf8_lossy(&metrics)
        );
        assert!(
            weights == expected[1],
            "{recipe}, round {round}: other weights"
        );
    }
}

/// The disk is full while the second checkpoint is written: the run says so, the first one stays,
/// and from there the run goes on to the same bytes.
#[cfg(unix)]
#[test]
fn a_full_disk_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    finish(&mut command("sft", OFFLINE, &whole));
    let out = folder.path().join("full");
    let first = out.join("checkpoints/sft-00000002/manifest.json");
    let mut child = command("sft", OFFLINE, &out)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !first.exists() {
        assert!(
            child.try_wait().unwrap().is_none(),
            "ended without a checkpoint"
        );
        thread::yield_now();
    }
    let _ = child.kill();
    child.wait().unwrap();
    // A limit on the size of files stands for the full disk: writes fail in the same way.
    let mut limited = Command::new("bash");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 1000; exec \"$@\"", "bash"]);
    let command_line = command("sft", OFFLINE, &out);
    limited
        .arg(command_line.get_program())
        .args(command_line.get_args())
        .arg("--resume");
    let output = limited.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("tensors.safetensors") && !said.contains("panicked"),
        "{said}"
    );
    finish(command("sft", OFFLINE, &out).arg("--resume"));
    assert!(
        result(&out) == result(&whole),
        "another result after a full disk"
    );
}

#[test]
fn sft() {
    resumes_exactly("sft", OFFLINE);
}

#[test]
fn sft_with_an_adapter_and_dropout() {
    resumes_exactly("sft", &[OFFLINE, LORA].concat());
}

#[test]
fn reward() {
    resumes_exactly("reward", OFFLINE);
}

#[test]
fn dpo() {
    // Pairs come again after six steps: what is known of the reference by then is kept.
    resumes_exactly("dpo", &[OFFLINE, &["--set=data.lab_rows=50"]].concat());
}

#[test]
fn ipo() {
    resumes_exactly("ipo", OFFLINE);
}

#[test]
fn slic() {
    resumes_exactly("slic", OFFLINE);
}

#[test]
fn kto() {
    resumes_exactly("kto", OFFLINE);
}

#[test]
fn ppo() {
    resumes_exactly("ppo", PPO);
}

#[test]
fn grpo_with_an_adapter_and_dropout() {
    resumes_exactly("grpo", &[ONLINE, LORA].concat());
}

#[test]
fn rloo() {
    resumes_exactly("rloo", ONLINE);
}

/// What the others keep beside weights and moments: a running baseline, prompts drawn to replace flat
/// ones, a reference that moves, a running shift, pairs that were drawn.
#[test]
fn reinforce() {
    resumes_exactly("reinforce", ONLINE);
}

#[test]
fn dapo() {
    resumes_exactly("dapo", ONLINE);
}

#[test]
fn online_dpo_with_a_reference_that_follows() {
    let follows = ["--set=reference={kind=\"ema\",decay=0.8}", WHOLE_GROUPS];
    resumes_exactly("online-dpo", &[ONLINE, &follows].concat());
}

#[test]
fn ppo_with_a_reference_that_follows() {
    let follows = ["--set=reference={kind=\"synced\",every=3,alpha=0.6}"];
    resumes_exactly("ppo", &[PPO, &follows].concat());
}

#[test]
fn nash_md() {
    resumes_exactly("nash-md", &[ONLINE, &[WHOLE_GROUPS]].concat());
}

#[test]
fn dpo_with_a_reference_that_follows_and_bco_with_its_shift() {
    let follows = [
        "--set=reference={kind=\"synced\",every=3,alpha=0.6}",
        "--set=loss={kind=\"bco_pair\",beta=0.1,shift_decay=0.5}",
    ];
    resumes_exactly("dpo", &[OFFLINE, &follows].concat());
}

#[test]
fn reward_from_rankings() {
    resumes_exactly(
        "reward",
        &[OFFLINE, &["--set=loss.kind=plackett_luce"]].concat(),
    );
}

#[test]
fn rso() {
    let settings = [
        "--max-steps=8",
        "--set=prompts=12",
        "--set=candidates=6",
        "--set=accepted=4",
        "--set=sampling.max_new_tokens=8",
        "--set=sampling.batch_size=12",
        "--set=preference.data.lab_rows=50",
        "--set=preference.train.batch_size=4",
        "--set=preference.train.micro_batch_size=4",
        "--set=preference.train.checkpoint_every=2",
    ];
    resumes_exactly("rso", &settings);
}

#[test]
fn rlhf() {
    resumes_exactly("rlhf", RLHF);
}
