//! Formats as regular expressions (ECMA-262, as JSON Schema has them), for those who describe or generate requests. Whatever a format takes
//! fits its pattern; [`super::formats::check`] alone decides, and knows check digits and days, which no pattern has.

use super::formats::{Format, OLD_PROVINCES, PROVINCES};

/// Returns the pattern of a format; `None` where no useful one exists.
pub fn pattern(format: Format) -> Option<String> {
    let provinces = || OLD_PROVINCES.join("|");
    let citizen = || format!("0({})[0-9]{{9}}", provinces());
    let inside = match format {
        Format::CitizenId => citizen(),
        Format::OldCitizenId => "[0-9]{9}".to_owned(),
        Format::TaxCode => format!("{}|[0-9]{{9}}[1-9](-?[0-9]{{3}})?", citizen()),
        Format::SocialInsuranceNumber => format!("[0-9]{{10}}|{}", citizen()),
        Format::AgencyCode => "[0-9A-Z]+(\\.[0-9A-Z]+)*|[0-9]{10}-?[0-9]{3}".to_owned(),
        Format::DossierNumber => {
            "[0-9A-Z.]+(-[0-9]{3})?-[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])-[0-9]{1,10}".to_owned()
        }
        Format::ProvinceCode => PROVINCES.map(|(code, _)| code).join("|"),
        Format::CommuneCode => "[0-9]{5}".to_owned(),
        Format::OldProvinceCode => provinces(),
        Format::OldDistrictCode => "[0-9]{3}".to_owned(),
        Format::ProcedureCode => "[0-9]{1,2}\\.[0-9]{6}(\\.[0-9A-Z.-]+)?".to_owned(),
        Format::BudgetUnitCode => "[0-9]{7}".to_owned(),
        Format::PhoneNumber => "\\+?[0-9]{9,15}".to_owned(),
        Format::Code => "[A-Za-z0-9._/-]+".to_owned(),
        Format::ParcelId => "[0-9b-hjkmnp-z]{12}".to_owned(),
        Format::TimeOfDay => "([01][0-9]|2[0-3]):[0-5][0-9]".to_owned(),
        Format::Email => "[A-Za-z0-9._+-]+@[A-Za-z0-9-]+(\\.[A-Za-z0-9-]+)+".to_owned(),
        Format::Unspecified | Format::PersonName | Format::XsdTime | Format::XsdDuration => return None,
    };
    Some(format!("^({inside})$"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::contract::formats::check;
    use proptest::prelude::*;
    use proptest::string::string_regex;

    /// Those whose pattern says everything.
    const EXACT: [Format; 12] = [
        Format::CitizenId,
        Format::OldCitizenId,
        Format::SocialInsuranceNumber,
        Format::ProvinceCode,
        Format::CommuneCode,
        Format::OldProvinceCode,
        Format::OldDistrictCode,
        Format::BudgetUnitCode,
        Format::PhoneNumber,
        Format::ParcelId,
        Format::TimeOfDay,
        Format::Email,
    ];

    proptest! {
        #[test]
        fn whatever_fits_an_exact_pattern_is_of_the_format(
            texts in EXACT.map(|format| string_regex(pattern(format).unwrap().trim_matches(['^', '$'])).unwrap())
        ) {
            for (format, text) in EXACT.iter().zip(&texts) {
                prop_assert!(check(*format, text).is_ok() || text.len() > 254, "{format:?} {text:?}");
            }
        }
    }
}
