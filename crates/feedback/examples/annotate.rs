//! The smallest program that lets somebody judge: `annotate DATA LOG ANNOTATOR [--ranking]`.

use std::{env, error::Error, path::PathBuf, time::SystemTime};

use togi_data::BadRows;
use togi_feedback::{Log, PlanOptions, Session, SessionOptions, items, terminal};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [data, path, annotator, rest @ ..] = &arguments[..] else {
        return Err("annotate DATA LOG ANNOTATOR [--ranking]".into());
    };
    terminal::check()?;
    let items = items::load(&[PathBuf::from(data)], BadRows::Error)?.items;
    let (mut log, done, torn) = Log::open(&PathBuf::from(path))?;
    if let Some(torn) = torn {
        println!("{torn}");
    }
    let options = SessionOptions {
        annotator: annotator.clone(),
        ranking: rest.iter().any(|r| r == "--ranking"),
        plan: PlanOptions::default(),
    };
    let mut session = Session::new(items, &done, options, SystemTime::now())?;
    terminal::run(&mut session, &mut log)?;
    let (done, all) = session.progress();
    println!(
        "saved {} in this sitting; {done}/{all} done",
        session.saved()
    );
    Ok(())
}
