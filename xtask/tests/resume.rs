//! Each recipe is killed at random moments and continued; what comes out is what an
//! uninterrupted run gives, byte by byte.

use std::{
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Instant,
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

fn command(recipe: &str, settings: &[&str], out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["train", recipe, "--out"]).arg(out);
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
            thread::sleep(duration.mul_f64(rng.next_f64()));
            // On Unix this is SIGKILL. The run may have ended before.
            let _ = child.kill();
            child.wait().unwrap();
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
    resumes_exactly("dpo", OFFLINE);
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

#[test]
fn rlhf() {
    resumes_exactly("rlhf", RLHF);
}
