//! Reference log-probabilities that are kept on disk: a second run reads them, and gives the same.

use std::{fs, path::Path};

use burn::tensor::Device;
use togi_data::{PairSample, Sample};
use togi_policy::hf;
use togi_train::{
    Event, Observer, RunFolder,
    config::{LoopSection, OptimSection},
    memory::Watch,
    offline::{self, Stage},
    preference::{Preference, PreferenceConfig},
};

#[derive(Default)]
struct Losses(Vec<f64>);

impl Observer for Losses {
    fn on(&mut self, event: Event<'_>) {
        if let Event::Step { row, .. } = event {
            self.0.push(row.get("loss").unwrap());
        }
    }
}

/// One test: the cache's place is the process's environment.
#[test]
fn kept_on_disk_by_content() {
    let home = tempfile::tempdir().unwrap();
    // SAFETY: this test is alone in its process.
    #[allow(unsafe_code)]
    unsafe {
        std::env::set_var("TOGI_HOME", home.path());
    }
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy/tests/fixtures/llama");
    let decoder = hf::load(&fixture, &Device::flex()).unwrap().decoder;
    let side = |answer: &[u32]| Sample::from_parts(&[1, 5, 9], answer, &[2]);
    let pairs: Vec<PairSample> = (0..12)
        .map(|i| PairSample {
            chosen: side(&[10 + i, 11, 2]),
            rejected: side(&[30 + i, 12, 13, 2]),
            margin: None,
            probability: None,
        })
        .collect();
    let run = |cached: bool, micro_batch_size: usize| {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::open(&folder.path().join("run"), "", false).unwrap();
        let mut losses = Losses::default();
        let mut stage = Stage {
            name: "dpo",
            run: &run,
            seed: 1,
            observer: &mut losses,
            watch: Watch::default(),
        };
        let config = PreferenceConfig {
            cache_reference: cached,
            ..PreferenceConfig::default()
        };
        let train = LoopSection {
            max_steps: 3,
            batch_size: 4,
            micro_batch_size,
            ..LoopSection::default()
        };
        let optim = OptimSection {
            learning_rate: 1e-3,
            ..OptimSection::default()
        };
        let mut policy = decoder.clone();
        let (mut objective, note) = Preference::new(&pairs, &[], &config, &policy).unwrap();
        offline::train(&mut stage, &mut policy, &mut objective, &optim, &train).unwrap();
        (losses.0, note)
    };
    let (plain, _) = run(false, 4);
    assert!(
        !home.path().join("reference").exists(),
        "nothing was asked to be kept"
    );
    let (first, note) = run(true, 4);
    assert_eq!(note, None);
    for (a, b) in plain.iter().zip(&first) {
        assert!((a - b).abs() < 1e-6, "{a}, {b}");
    }
    let files: Vec<_> = fs::read_dir(home.path().join("reference"))
        .unwrap()
        .collect();
    assert_eq!(files.len(), 1, "one file a reference model");
    let path = files.into_iter().next().unwrap().unwrap().path();
    let kept = fs::read(&path).unwrap();
    // Read back: the same numbers, and nothing to add.
    assert_eq!(run(true, 4).0, first);
    assert_eq!(fs::read(&path).unwrap(), kept);
    // What is kept does not depend on how the run cut its batches.
    fs::remove_file(&path).unwrap();
    run(true, 1);
    assert_eq!(fs::read(&path).unwrap(), kept);
    let mut damaged = kept.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&path, &damaged).unwrap();
    let (again, note) = run(true, 4);
    assert!(note.unwrap().contains("is damaged"));
    assert_eq!(again, first);
    assert_eq!(fs::read(&path).unwrap(), kept, "it was written anew");
}
