//! Measures embeddings that were stored, by this tool or by somebody else's.

use std::collections::{BTreeMap, HashSet};

use anyhow::anyhow;
use cognate_cli::{Common, rejected};
use cognate_records::{Embedding, Error, Reader, WriterOptions};

use crate::cli::Metrics;
use crate::cloud::Cloud;
use crate::probe::{labels, measure as measures, write_metrics};

/// What is measured on its own: one model, document form, layer and pooling. Sorted in the order of the report.
type Space = (Option<String>, Option<String>, u32, u8, String);

#[derive(Default)]
struct Gathered {
    width: usize,
    values: Vec<f32>,
    problem: Vec<u32>,
    language: Vec<String>,
    problems: BTreeMap<String, u32>,
    ids: HashSet<String>,
}

/// # Errors
/// Data errors of the embeddings, and failing outputs.
pub fn measure(common: &Common, args: &Metrics) -> anyhow::Result<()> {
    common.threads();
    let mut spaces: BTreeMap<Space, Gathered> = BTreeMap::new();
    for path in &args.embeddings {
        for (row, record) in Reader::<Embedding>::open(path)?.enumerate() {
            let taken = record.and_then(|embedding| {
                let place = format!("{}: record {}: {}", path.display(), row + 1, embedding.id);
                take(&mut spaces, embedding, &args.languages).map_err(|reason| Error::data(place, reason))
            });
            if let Err(e) = taken {
                common.skip(e)?;
            }
        }
    }
    if spaces.is_empty() {
        return Err(rejected(anyhow!("no embeddings of the languages asked for")));
    }
    let mut records = Vec::new();
    for ((model, document, layer, _, pooling), gathered) in spaces {
        let cloud = gathered.cloud(&args.languages)?;
        let mut labels = labels(model.as_deref(), document.as_deref().unwrap_or("unknown"));
        labels.insert("layer".into(), layer.to_string());
        labels.insert("pooling".into(), pooling);
        records.extend(measures(&cloud, &labels, &args.measures.centre, common.seed));
    }
    let mut provenance = common.provenance("cog-probe", env!("CARGO_PKG_VERSION"));
    for path in &args.embeddings {
        provenance = provenance.input(path)?;
    }
    let options = WriterOptions { provenance: Some(provenance), ..WriterOptions::default() };
    write_metrics(&args.measures, &records, options)
}

fn take(
    spaces: &mut BTreeMap<Space, Gathered>,
    embedding: Embedding,
    languages: &[String],
) -> Result<(), String> {
    if !languages.is_empty() && !languages.contains(&embedding.language) {
        return Ok(());
    }
    let document = embedding.extra.get("document").and_then(|d| d.as_str()).map(str::to_owned);
    // Mean before last, as a model's own report has them; other poolings after.
    let rank = match embedding.pooling.as_str() {
        "mean" => 0,
        "last" => 1,
        _ => 2,
    };
    let gathered =
        spaces.entry((embedding.model, document, embedding.layer, rank, embedding.pooling)).or_default();
    if gathered.problem.is_empty() {
        gathered.width = embedding.vector.len();
    }
    if embedding.vector.len() != gathered.width {
        return Err(format!(
            "vector of {} values among vectors of {}",
            embedding.vector.len(),
            gathered.width
        ));
    }
    if !gathered.ids.insert(embedding.id) {
        return Err("its vector was there before; is a file given twice?".into());
    }
    let next = gathered.problems.len() as u32;
    gathered.problem.push(*gathered.problems.entry(embedding.problem).or_insert(next));
    gathered.language.push(embedding.language);
    gathered.values.extend(embedding.vector);
    Ok(())
}

impl Gathered {
    fn cloud(self, wanted: &[String]) -> anyhow::Result<Cloud> {
        let mut languages = wanted.to_vec();
        if languages.is_empty() {
            languages.extend(self.language.iter().cloned());
            languages.sort_unstable();
            languages.dedup();
        }
        if languages.len() < 2 {
            return Err(rejected(anyhow!(
                "embeddings of two languages or more are needed, found {}",
                languages.join(", ")
            )));
        }
        let index: BTreeMap<&String, u32> = languages.iter().zip(0..).collect();
        Ok(Cloud {
            width: self.width,
            values: self.values,
            problem: self.problem,
            language: self.language.iter().map(|l| index[l]).collect(),
            problems: self.problems.len(),
            languages,
        })
    }
}
