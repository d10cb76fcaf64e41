//! `[dialog]`: what holds for all dialogs.

use std::time::Duration;

use toml::de::DeTable;

use crate::model::{Dialog, MatchMode};
use crate::read::{Diagnostics, Table};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

const MATCH_MODES: &[(&str, MatchMode)] = &[
    ("did_only", MatchMode::DidOnly),
    ("did_fallback", MatchMode::DidFallback),
    ("did_none", MatchMode::DidNone),
];

pub(super) fn dialog(table: &mut Table<'_, '_>, out: &mut Diagnostics) -> Dialog {
    let empty = DeTable::new();
    let mut table = table
        .table("dialog", "`[dialog]`", out)
        .unwrap_or_else(|| Table::new(&empty, "`[dialog]`", 0..0));
    let dialog = Dialog {
        default_timeout: table
            .duration("default_timeout", SECOND..=30 * DAY, out)
            .unwrap_or(12 * HOUR),
        delete_delay: table
            .duration("delete_delay", Duration::ZERO..=HOUR, out)
            .unwrap_or(Duration::ZERO),
        options_ping_interval: table
            .duration("options_ping_interval", SECOND..=HOUR, out)
            .unwrap_or(30 * SECOND),
        race_condition_timeout: table
            .duration("race_condition_timeout", SECOND..=60 * SECOND, out)
            .unwrap_or(5 * SECOND),
        dlg_match_mode: table
            .choice("dlg_match_mode", MATCH_MODES, out)
            .map_or(MatchMode::DidFallback, |at| at.value),
    };
    table.finish(out);
    dialog
}
