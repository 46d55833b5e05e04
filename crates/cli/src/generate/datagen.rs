//! Rows of connector `datagen`, read through the same code as in a pipeline.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millstream_connectors::{SourcePoll, SourceReader, connector};
use millstream_formats::{Encoder, FormatKind, FormatOptions, encoder};
use millstream_plan::SplitRange;

use super::Taken;
use super::target::Target;
use crate::args::DatagenArgs;
use crate::bench::topic::quoted;
use crate::failure::Failure;

/// How long to wait when no row is due.
const PAUSE: Duration = Duration::from_millis(20);

pub(super) fn generate(args: &DatagenArgs) -> Result<(), Failure> {
    let mut options = String::new();
    let rows = args.rows.map(|n| ("number-of-rows".to_owned(), n.to_string()));
    for (key, value) in args.options.iter().chain(&rows) {
        let _ = write!(options, ", {} = {}", quoted(key), quoted(value));
    }
    let columns = &args.columns;
    let sql = format!(
        "CREATE TABLE rows_of_datagen ({columns}) WITH ('connector' = 'datagen'{options});\n\
         CREATE TABLE target ({columns}) WITH ('connector' = 'blackhole');\n\
         INSERT INTO target SELECT * FROM rows_of_datagen;"
    );
    let pipeline = millstream_sql::plan(&sql, &BTreeMap::new(), 1)?;
    let missing = || Failure::job("the rows have no source");
    let spec = pipeline.sources.into_iter().next().ok_or_else(missing)?;
    let schema = spec.schema.clone();
    let datagen = connector("datagen").ok_or_else(missing)?;
    let factory = (datagen.source)(spec)?;
    let mut enumerator = factory.enumerator()?;
    let mut reader = factory.reader(0)?;
    let mut json = encoder(&schema, &FormatOptions::new(FormatKind::Json))
        .map_err(|e| Failure::job(format!("the rows cannot be written as JSON: {e}")))?;
    let mut target = Target::open(&args.target)?;
    let mut positions = BTreeMap::new();
    loop {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        let found = enumerator.discover(&positions, now_ms)?;
        let mut new = false;
        for split in found.splits {
            let from = positions.get(&split.split).copied().unwrap_or(split.start);
            if from < split.end {
                new = true;
                let range = SplitRange { split: split.split, task: 0, from, to: split.end, tag: split.tag };
                if write_range(&mut *reader, &mut *json, &range, &mut target)? == Taken::Enough {
                    return Ok(());
                }
                positions.insert(range.split, range.to);
            } else {
                positions.insert(split.split, from);
            }
        }
        target.flush()?;
        if found.complete {
            return Ok(());
        }
        if !new {
            std::thread::sleep(PAUSE);
        }
    }
}

fn write_range(
    reader: &mut dyn SourceReader,
    json: &mut dyn Encoder,
    range: &SplitRange,
    target: &mut Target,
) -> Result<Taken, Failure> {
    let (mut text, mut ends) = (Vec::new(), Vec::new());
    loop {
        match reader.poll(range)? {
            SourcePoll::Done => return Ok(Taken::GoOn),
            SourcePoll::Pending => std::thread::sleep(Duration::from_millis(1)),
            SourcePoll::Batch(batch) => {
                text.clear();
                ends.clear();
                json.encode(&batch.rows, &mut text, &mut ends)
                    .map_err(|e| Failure::job(format!("the rows cannot be written as JSON: {e}")))?;
                let mut start = 0;
                for end in &ends {
                    if target.write(&text[start..*end])? == Taken::Enough {
                        return Ok(Taken::Enough);
                    }
                    start = *end;
                }
            }
        }
    }
}
