//! Administrators and auditors, on the command line, remotely and in a browser.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod administration;
mod browser;
mod command_line;
mod confirmation;
mod console;
mod console_auditor;
mod console_developer;
mod console_log;
mod console_openid;
mod console_operator;
mod console_rights;
mod console_sign_in;
mod console_witness;
mod doctor;
mod init;
mod openid_provider;
mod registry_columns;
mod registry_edits;
mod registry_log;
mod remote;
mod rights;
mod second_person;
mod sites;
mod transcript;
mod watching;
