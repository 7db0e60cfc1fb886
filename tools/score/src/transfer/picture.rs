//! The table as a figure: a row of panels a temperature, a panel a language, before and after RL for every arm.

use super::page::{Page, temperature_name};
use crate::figure::{Dot, DotPanel, DotPlot, Series};

/// # Errors
/// When the backend fails.
pub fn svg(page: &Page) -> anyhow::Result<String> {
    let plan = page.plan;
    let panel = |block: &super::results::Block, column: usize| {
        let role = if column == 0 { "source" } else { "target" };
        DotPanel {
            title: format!("{} ({role})", page.names.language(&plan.languages[column])),
            dots: block
                .rows
                .iter()
                .map(|row| {
                    let sides = [&row[column].before, &row[column].after];
                    let dot = |(series, value): (usize, &Option<super::results::Value>)| {
                        let value = value.as_ref()?;
                        Some(Dot { series, value: value.mean, interval: Some(value.interval) })
                    };
                    sides.into_iter().enumerate().filter_map(dot).collect()
                })
                .collect(),
        }
    };
    DotPlot {
        title: page.title(),
        axis: "pass@1, %".into(),
        rows: plan.arms.iter().map(|arm| page.names.arm(arm)).collect(),
        series: vec![
            Series::new("before RL".into(), 0),
            Series::new(format!("after RL on {}", page.names.language(&plan.languages[0])), 1),
        ],
        grid: page
            .results
            .blocks
            .iter()
            .map(|block| {
                let panels = (0..plan.languages.len()).map(|c| panel(block, c)).collect();
                (temperature_name(block.temperature), panels)
            })
            .collect(),
    }
    .svg()
}
