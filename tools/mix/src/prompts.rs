//! `cog-mix prompts`: what a sampler is asked, with its text and token ids.

use std::collections::{BTreeSet, HashMap};

use cognate_chat::Chat;
use cognate_cli::{Common, rejected};
use cognate_languages::Language;
use cognate_random::Key;
use cognate_records::{Extra, Message, Problem, Program, Prompt, Writer, WriterOptions};

use crate::cli::{self, Task};
use crate::corpus::{NO_SPLIT, data, is_accepted, load_languages, named, read};
use crate::document::chat_error;
use crate::format::Format;

struct Asked {
    id: String,
    statement: String,
    split: Option<String>,
}

pub fn run(common: &Common, options: &cli::Prompts) -> anyhow::Result<()> {
    let languages = load_languages(options.languages_table.as_deref())?;
    let asked_languages = named(&languages, &options.languages)?;
    let chat = Chat::open(&options.tokenizer).map_err(chat_error)?;
    let format = Format::open(&options.format)?;
    let verify = options.task.contains(&Task::Verification);
    if verify && options.programs.is_empty() {
        return Err(cognate_cli::usage("--task verification needs --programs"));
    }

    let mut problems: Vec<Asked> = Vec::new();
    let mut seen = BTreeSet::new();
    read::<Problem>(common, &options.problems, |path, problem| {
        if !seen.insert(problem.id.clone()) {
            return common.skip(data(path, format!("problem {:?} stands twice", problem.id)));
        }
        if options.split.as_deref().is_none_or(|s| s == problem.split.as_deref().unwrap_or(NO_SPLIT)) {
            problems.push(Asked { id: problem.id, statement: problem.statement, split: problem.split });
        }
        Ok(())
    })?;
    if problems.is_empty() {
        let split = options.split.as_deref().unwrap_or("any");
        return Err(rejected(anyhow::anyhow!("no problem in split {split}")));
    }
    sample(&mut problems, options.limit, Key::new(common.seed).with("mix prompts"));
    let programs =
        if verify { programs(common, options, &problems, &asked_languages)? } else { HashMap::new() };

    let mut provenance = common.provenance("cog-mix", env!("CARGO_PKG_VERSION"));
    for path in
        options.problems.iter().chain(&options.programs).chain([&options.tokenizer]).chain(&common.config)
    {
        provenance = provenance.input(path)?;
    }
    let writer = WriterOptions { provenance: Some(provenance), ..WriterOptions::default() };
    let mut out = Writer::<Prompt>::create(&options.out, writer)?;
    let mut too_long = 0u64;
    let mut write =
        |id: String, asked: &Asked, language: &Language, task: &str, messages: Vec<Message>, extra: Extra| {
            let rendered = chat.prompt(&messages).map_err(chat_error)?;
            if options.max_prompt.is_some_and(|most| rendered.ids.len() > most) {
                too_long += 1;
                return Ok(());
            }
            let prompt = Prompt {
                id,
                problem: asked.id.clone(),
                language: language.name.clone(),
                task: task.into(),
                messages,
                text: rendered.text,
                ids: rendered.ids,
                split: asked.split.clone(),
                stop_ids: chat.stop_ids().to_vec(),
                extra,
            };
            out.write(&prompt).map_err(anyhow::Error::from)
        };
    for asked in &problems {
        for language in &asked_languages {
            if options.task.contains(&Task::Generation) {
                let id = format!("{}/{}/generation", asked.id, language.name);
                write(
                    id,
                    asked,
                    language,
                    "generation",
                    format.generation(&asked.statement, language)?,
                    Extra::new(),
                )?;
            }
            for program in programs.get(&(asked.id.as_str(), language.name.as_str())).into_iter().flatten() {
                let id = format!("{}/verification", program.id);
                let messages = format.verification(&asked.statement, language, &program.source)?;
                // What a grader compares the answer with.
                let label = if is_accepted(program) == Some(true) { "yes" } else { "no" };
                let mut extra = Extra::new();
                extra.insert("program".into(), program.id.as_str().into());
                extra.insert("label".into(), label.into());
                write(id, asked, language, "verification", messages, extra)?;
            }
        }
    }
    let count = out.count();
    if count == 0 {
        return Err(rejected(anyhow::anyhow!("no prompt: {too_long} are longer than --max-prompt")));
    }
    out.finish()?;
    common.note(format_args!(
        "{count} prompts for {} problems, {too_long} left out as too long",
        problems.len()
    ));
    Ok(())
}

/// Keeps `limit` problems drawn by the key, in their order.
fn sample(problems: &mut Vec<Asked>, limit: Option<usize>, key: Key) {
    let Some(limit) = limit.filter(|&n| n < problems.len()) else { return };
    let mut ranks: Vec<(u64, usize)> =
        problems.iter().enumerate().map(|(i, p)| (key.with(&p.id).bits(0), i)).collect();
    ranks.sort_unstable();
    let kept: BTreeSet<usize> = ranks[..limit].iter().map(|&(_, i)| i).collect();
    let mut i = 0;
    problems.retain(|_| {
        i += 1;
        kept.contains(&(i - 1))
    });
}

type ByPlace<'a> = HashMap<(&'a str, &'a str), Vec<Program>>;

fn programs<'a>(
    common: &Common,
    options: &cli::Prompts,
    problems: &'a [Asked],
    languages: &[&'a Language],
) -> anyhow::Result<ByPlace<'a>> {
    let ids: HashMap<&str, &'a str> = problems.iter().map(|p| (p.id.as_str(), p.id.as_str())).collect();
    let mut found: ByPlace = HashMap::new();
    read::<Program>(common, &options.programs, |_, program| {
        let problem = ids.get(program.problem.as_str()).copied();
        let language = languages.iter().find(|l| l.name == program.language);
        if let (Some(problem), Some(language), Some(_)) = (problem, language, is_accepted(&program)) {
            found.entry((problem, language.name.as_str())).or_default().push(program);
        }
        Ok(())
    })?;
    Ok(found)
}
