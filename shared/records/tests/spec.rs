//! Every column has its row in the type's specification, and the other way round.

use cognate_records::{
    Conversation, Embedding, Group, Metric, Packed, Problem, Program, Prompt, Record, Rollout, StepEnd,
    VerdictRecord, column_names,
};

/// Field names in the first column of the first table.
fn specified(schema: &str) -> Vec<String> {
    let name = schema.split('/').next().unwrap();
    let path = format!("{}/spec/{name}.md", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    assert!(text.starts_with(&format!("# {schema}\n")), "{path} must open with its schema");
    let table =
        text.lines().skip_while(|l| !l.starts_with("|---")).skip(1).take_while(|l| l.starts_with('|'));
    let cells = table.filter_map(|l| l.split('|').nth(1)).map(str::to_owned).collect::<Vec<_>>().join(",");
    cells.split(',').map(|c| c.trim().trim_matches('`').to_owned()).collect()
}

fn agree<T: Record>() {
    assert_eq!(specified(T::SCHEMA), column_names::<T>(), "{}", T::SCHEMA);
}

#[test]
fn specifications_and_columns_agree() {
    agree::<Problem>();
    agree::<Program>();
    agree::<Group>();
    agree::<Conversation>();
    agree::<Packed>();
    agree::<Prompt>();
    agree::<Rollout>();
    agree::<VerdictRecord>();
    agree::<Embedding>();
    agree::<Metric>();
    agree::<StepEnd>();
}
