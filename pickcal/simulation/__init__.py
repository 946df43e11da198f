"""Simulated data sets with known truth: micrographs, CTF table, particles, contaminants and templates."""

from pickcal.picking.projection import Volume, euler_rotation, even_angles, project
from pickcal.simulation.imaging import SimulatedMicrograph, simulate_micrograph
from pickcal.simulation.particles import simulate_particle
from pickcal.simulation.scene import Contaminant, Scene, make_scene, plan
from pickcal.simulation.writing import SimulatedSet, simulate

__all__ = [
    "Contaminant",
    "Scene",
    "SimulatedMicrograph",
    "SimulatedSet",
    "Volume",
    "euler_rotation",
    "even_angles",
    "make_scene",
    "plan",
    "project",
    "simulate",
    "simulate_micrograph",
    "simulate_particle",
]
