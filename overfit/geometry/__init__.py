"""Meshes, point clouds, signed distances and marching cubes; nothing here knows of networks."""
