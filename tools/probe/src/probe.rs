//! From programs and a model to vectors and measures.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, anyhow};
use cognate_chat::Chat;
use cognate_cli::{Common, rejected};
use cognate_languages::Languages;
use cognate_model::LlamaConfig;
use cognate_model::cuda::Purpose;
use cognate_model::placed::{Model, place};
use cognate_records::{Embedding, Metric, Problem, Program, Provenance, Reader, Writer, WriterOptions};

use crate::cli::{Centre, Measures, Probe};
use crate::cloud::Cloud;
use crate::document::{Document, Documents, Form};
use crate::embed::{Vectors, embed, fault};
use crate::report::report;
use crate::select::{Row, Selection, Wanted};

/// # Errors
/// Data errors of the model directory, the programs or the problems, and failing outputs.
pub fn probe(common: &Common, args: &Probe) -> anyhow::Result<()> {
    common.threads();
    let dir = args.model.as_deref().context("--model is needed")?;
    let statements = statements(common, args)?;
    let (languages, rows) = select(common, args)?;
    let config = LlamaConfig::read(dir).map_err(fault)?;
    let place = place(args.device, &config, |why| common.note(why)).map_err(fault)?;
    let model = Model::open(dir, &place, Purpose::Inference).map_err(fault)?;
    let chat = Chat::open(dir).map_err(|e| if e.is_data() { rejected(e) } else { e.into() })?;
    let table = Languages::builtin();
    let documents = Documents { chat: &chat, languages: &table, statements };
    let (rows, documents) =
        documents_of(common, args, &documents, rows, model.config().max_position_embeddings)?;
    let layers = layers(args, model.config().num_hidden_layers)?;
    let width = model.config().hidden_size;
    let progress = common.progress("probe", Some(documents.iter().map(|d| d.1.len() as u64).sum()));
    let options = WriterOptions { provenance: Some(provenance(common, args)?), ..WriterOptions::default() };
    let mut embeddings = match &args.embeddings {
        Some(path) => Some(Writer::<Embedding>::create(path, options.clone())?),
        None => None,
    };
    let mut cloud = Cloud {
        width,
        problem: (0..rows.len()).flat_map(|row| vec![row as u32; languages.len()]).collect(),
        language: (0..rows.len()).flat_map(|_| 0..languages.len() as u32).collect(),
        problems: rows.len(),
        languages,
        ..Cloud::default()
    };
    let mut records = Vec::new();
    for (form, documents) in documents {
        let vectors = embed(&model, &documents, &layers, &args.pooling, &progress)?;
        if let Some(writer) = &mut embeddings {
            write_embeddings(writer, args, form, &rows, &vectors, width)?;
        }
        for v in vectors {
            cloud.values = v.values;
            let mut labels = labels(args.label.as_deref(), form.name());
            labels.insert("layer".into(), v.layer.to_string());
            labels.insert("pooling".into(), v.pooling.name().into());
            records.extend(measure(&cloud, &labels, &args.measures.centre, common.seed));
        }
    }
    progress.finish();
    if let Some(writer) = embeddings {
        writer.finish()?;
    }
    write_metrics(&args.measures, &records, options)
}

fn select(common: &Common, args: &Probe) -> anyhow::Result<(Vec<String>, Vec<Row>)> {
    let mut selection = Selection::new(Wanted {
        languages: args.languages.clone(),
        splits: args.split.clone(),
        claim: args.claim.clone(),
        seed: common.seed,
    });
    for path in &args.programs {
        for program in Reader::<Program>::open(path)? {
            match program {
                Ok(program) => selection.offer(program),
                Err(e) => common.skip(e)?,
            }
        }
    }
    selection.finish()
}

fn statements(common: &Common, args: &Probe) -> anyhow::Result<HashMap<String, String>> {
    let mut statements = HashMap::new();
    if !args.document.contains(&Form::Statement) {
        return Ok(statements);
    }
    let path = args
        .problems
        .as_deref()
        .ok_or_else(|| cognate_cli::usage("--document statement needs --problems"))?;
    for problem in Reader::<Problem>::open(path)? {
        match problem {
            Ok(problem) => drop(statements.insert(problem.id, problem.statement)),
            Err(e) => common.skip(e)?,
        }
    }
    Ok(statements)
}

/// The first `--limit` problems whose programs all fit into the context in every form, and their documents.
#[expect(clippy::type_complexity, reason = "used once, and both parts are named where they are")]
fn documents_of(
    common: &Common,
    args: &Probe,
    maker: &Documents,
    rows: Vec<Row>,
    context: usize,
) -> anyhow::Result<(Vec<Row>, Vec<(Form, Vec<Document>)>)> {
    let mut documents: Vec<(Form, Vec<Document>)> =
        args.document.iter().map(|&form| (form, Vec::new())).collect();
    let (mut kept, mut long) = (Vec::new(), 0u64);
    for row in rows {
        if kept.len() >= args.limit as usize {
            break;
        }
        let made = |&form: &Form| row.programs.iter().map(|p| maker.make(form, p)).collect();
        let of_row: Vec<Vec<Document>> = args.document.iter().map(made).collect::<anyhow::Result<_>>()?;
        if of_row.iter().flatten().any(|d| d.ids.len() > context) {
            long += 1;
            continue;
        }
        documents.iter_mut().zip(of_row).for_each(|(all, of_form)| all.1.extend(of_form));
        kept.push(row);
    }
    if long > 0 {
        common.note(format_args!(
            "{long} problems passed over: a program is longer than the context of {context} tokens"
        ));
    }
    if kept.is_empty() {
        return Err(rejected(anyhow!(
            "no problem's programs fit into the model's context of {context} tokens"
        )));
    }
    Ok((kept, documents))
}

fn layers(args: &Probe, blocks: usize) -> anyhow::Result<Vec<usize>> {
    if let Some(layer) = args.layers.iter().find(|&&layer| layer > blocks) {
        return Err(cognate_cli::usage(format!("--layers {layer}: the model has layers 0 to {blocks}")));
    }
    if !args.layers.is_empty() {
        return Ok(args.layers.clone());
    }
    Ok((0..=blocks).collect())
}

/// Labels of everything that a model's documents of one form give.
pub fn labels(model: Option<&str>, document: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([("document".to_owned(), document.to_owned())]);
    if let Some(model) = model {
        labels.insert("model".into(), model.into());
    }
    labels
}

/// All measures of the cloud under each centring.
pub fn measure(
    cloud: &Cloud,
    labels: &BTreeMap<String, String>,
    centres: &[Centre],
    seed: u64,
) -> Vec<Metric> {
    let mut records = Vec::new();
    for centre in centres {
        let mut labels = labels.clone();
        labels.insert("centre".into(), centre.name().into());
        records.extend(match centre {
            Centre::None => report(cloud, &labels, seed),
            Centre::Language => {
                let mut centred = cloud.clone();
                centred.centre_by_language();
                report(&centred, &labels, seed)
            }
        });
    }
    records
}

pub fn write_metrics(measures: &Measures, records: &[Metric], options: WriterOptions) -> anyhow::Result<()> {
    let mut writer = Writer::<Metric>::create(&measures.output, options)?;
    records.iter().try_for_each(|record| writer.write(record))?;
    Ok(writer.finish()?)
}

fn write_embeddings(
    writer: &mut Writer<Embedding>,
    args: &Probe,
    form: Form,
    rows: &[Row],
    vectors: &[Vectors],
    width: usize,
) -> anyhow::Result<()> {
    for (at, program) in rows.iter().flat_map(|row| &row.programs).enumerate() {
        for v in vectors {
            let mut embedding = Embedding {
                id: program.id.clone(),
                problem: program.problem.clone(),
                language: program.language.clone(),
                layer: v.layer as u32,
                pooling: v.pooling.name().into(),
                vector: v.values[at * width..(at + 1) * width].to_vec(),
                model: args.label.clone(),
                ..Embedding::default()
            };
            embedding.extra.insert("document".into(), form.name().into());
            writer.write(&embedding)?;
        }
    }
    Ok(())
}

fn provenance(common: &Common, args: &Probe) -> anyhow::Result<Provenance> {
    let start = common.provenance("cog-probe", env!("CARGO_PKG_VERSION"));
    let problems = args.problems.as_ref().filter(|_| args.document.contains(&Form::Statement));
    let mut files = args.programs.iter().chain(problems).chain(&args.model);
    Ok(files.try_fold(start, |provenance, path| provenance.input(path))?)
}
