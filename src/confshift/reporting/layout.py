"""The steps of the page's argument, in their order; charts and questions name the one they belong to."""

from __future__ import annotations

#: The title of each section, by its anchor.
SECTIONS = {
    "rise": "Is it systematic, and which checkpoint is best?",
    "account": "What changed",
    "cells": "In which samples",
    "history": "How it came about",
    "parts": "Calibration or information",
    "classes": "Where: classes",
    "reliability": "Can the confidence be believed?",
    "concentration": "How many samples carry it",
    "samples": "Single samples",
    "start": "Was the start sane?",
    "measuring": "Is it measured right?",
    "other": "Further questions",
}
